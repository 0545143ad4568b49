"""A camera that sends JPEG pictures over HTTP on loopback, and that can be cut off."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"


class Camera:
    """Serves the same pictures to everybody who connects, over and over, at so many a second."""

    def __init__(self, pictures: Sequence[bytes], rate: float) -> None:
        self._pictures = pictures
        self._rate = rate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._over = threading.Event()
        self._open: list[socket.socket] = []
        self.connections = 0
        self.sent = 0
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/live.mjpeg"

    def cut(self) -> None:
        """Break every connection in the middle of whatever is being sent."""
        for connection in self._open:
            with suppress(OSError):  # its reader went first
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._over.set()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # cut off, or the reader has gone
            connection.recv(65536)
            connection.sendall(_HEAD)
            while not self._over.is_set():
                for picture in self._pictures:
                    length = f"Content-Length: {len(picture)}\r\n\r\n".encode()
                    part = b"--frame\r\nContent-Type: image/jpeg\r\n" + length
                    connection.sendall(part + picture + b"\r\n")
                    self.sent += 1
                    time.sleep(1 / self._rate)


@contextmanager
def camera(pictures: Sequence[bytes], rate: float = 25) -> Iterator[Camera]:
    one = Camera(pictures, rate)
    try:
        yield one
    finally:
        one.close()
