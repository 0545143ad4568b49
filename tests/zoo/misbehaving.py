"""A file server on loopback that can misbehave in every way a download has to survive."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mien.download import Patience

HASTE = Patience(timeout=0.5, attempts=3, pause=0.01)

Reply = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Answers each path by the function in `replies`; notes what was asked, and from where on."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: dict[str, Reply] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.stopping = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.asked]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"]))
        self.server.replies[self.path](self)

    def log_message(self, *_: object) -> None: ...

    def start(self) -> int:
        """The first byte asked for."""
        return int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    def head(self, status: int, **headers: str | int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


def whole(data: bytes) -> Reply:
    """A server that knows no ranges."""

    def reply(handler: Handler) -> None:
        handler.head(200, Content_Length=len(data))
        handler.wfile.write(data)

    return reply


def ranged(data: bytes, cut: int | None = None) -> Reply:
    """A server that knows ranges, and closes after `cut` bytes of each answer."""

    def reply(handler: Handler) -> None:
        start = handler.start()
        if start >= len(data):
            handler.head(416, Content_Range=f"bytes */{len(data)}")
            return
        if start:
            handler.head(206, Content_Length=len(data) - start,
                         Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")  # fmt: skip
        else:
            handler.head(200, Content_Length=len(data))
        handler.wfile.write(data[start:][:cut])

    return reply


def redirect(to: str) -> Reply:
    return lambda handler: handler.head(302, Location=to, Content_Length=0)


def status(code: int) -> Reply:
    return lambda handler: handler.head(code, Content_Length=0)


def stalls(data: bytes, after: int) -> Reply:
    """Sends a beginning, then nothing for longer than anyone waits."""

    def reply(handler: Handler) -> None:
        handler.head(200, Content_Length=len(data))
        handler.wfile.write(data[:after])
        handler.wfile.flush()
        handler.server.stopping.wait(30)

    return reply


def in_turn(*replies: Reply) -> Reply:
    """A different answer each time; the last for all that follow."""
    left = list(replies)

    def reply(handler: Handler) -> None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        answer(handler)

    return reply
