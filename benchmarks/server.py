"""How much of the library's speed is left behind the server, on this machine, in one run.

    python benchmarks/server.py [--data ../shared/data] [--seconds 5] [--rounds 3] [--soak 0]

The faces of the same pictures are identified among the same 100 people by the library called in a
loop with one thread a processor, and by a server on loopback that is driven from another process
on the same processors, turn about: in pictures a second, and in processor time a picture, which
other programs on the machine disturb less. Then the latency at half that load, and what embedding
faces of several requests together could gain at most. `--soak N` ends with N minutes of mixed
load (30 for the figure of the design), at half the load or `--soak-rate`: resident memory, and
every acknowledged person present, also after the server is killed in the middle of enrolments.
`--data` may be a folder of JPEGs.
"""

import argparse
import contextlib
import http.client
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import resources
from itertools import count
from pathlib import Path

import mien
from mien.alignment import align
from mien.recognition import ordered_map

BOUNDARY = "mien-benchmark"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--soak-rate", type=float, metavar="N",
                        help="requests a second of it; else half of what it can")  # fmt: skip
    parser.add_argument("--attach", nargs=4, type=float, metavar=("PORT", "PID", "RATE", "FIRST"),
                        help="soak a server that runs, from the person FIRST on")  # fmt: skip
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    pictures = load(options.data)
    if options.drive:
        port, clients, seconds = options.drive
        done = drive(int(port), pictures, int(clients), float(seconds))
        print(len(done) / float(seconds))
        return
    if options.attach:
        port, pid, rate, first = options.attach
        kept = soak(int(port), int(pid), pictures, rate, options.soak, int(first))
        print(f"{len(kept)} people acknowledged, {missing(int(port), kept)} missing")
        return
    recognizer = mien.load()
    print(f"{len(pictures)} pictures, {recognizer.threads} threads, "
          f"{recognizer.bundle.id} on {os.cpu_count()} processors")  # fmt: skip
    batching(recognizer, pictures)
    with tempfile.TemporaryDirectory() as folder:
        measure(options, recognizer, pictures, Path(folder))


def measure(
    options: argparse.Namespace, recognizer: mien.Recognizer, pictures: list[bytes], folder: Path
) -> None:
    """The server against the library, and what was asked for besides."""
    with (
        serve(folder) as (port, process),
        mien.open_gallery(folder / "library.mien") as gallery,
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for number, picture in enumerate(pictures[:100]):
            path = f"/v1/galleries/people/subjects/p{number}?choose=largest"
            request(connection, "PUT", path, picture)
            gallery.enroll(f"p{number}", picture, recognizer, choose=mien.largest)
        single = statistics.median(drive(port, pictures, 1, 1.5))
        ratios, work, library = [], [], 0.0
        for number in range(1, options.rounds + 1):
            spent = time.process_time()
            library = in_a_loop(gallery, recognizer, pictures, options.seconds)
            ours = (time.process_time() - spent) / (library * options.seconds)
            spent = processor_time(process.pid)
            server = driven(options.data, port, 4 * recognizer.threads, options.seconds)
            theirs = (processor_time(process.pid) - spent) / (server * options.seconds)
            ratios.append(server / library)
            work.append(ours / theirs)
            print(f"round {number}: library {library:.1f} pictures/s ({1e3 * ours:.1f} CPU-ms), "
                  f"server {server:.1f} ({1e3 * theirs:.1f} CPU-ms), "
                  f"ratio {ratios[-1]:.2f} ({work[-1]:.2f} by CPU)")  # fmt: skip
        print(f"saturation: median ratio {statistics.median(ratios):.2f} "
              f"(from {min(ratios):.2f} to {max(ratios):.2f}), by CPU "
              f"{statistics.median(work):.2f} ({min(work):.2f} to {max(work):.2f})")  # fmt: skip
        rate = 0.5 * library * statistics.median(ratios)
        latencies = drive(port, pictures, 16, 2 * options.seconds, rate)
        p99 = quantile(latencies, 0.99)
        print(f"half load, {rate:.0f}/s: median {1e3 * statistics.median(latencies):.0f} ms, "
              f"p99 {1e3 * p99:.0f} ms; one picture alone {1e3 * single:.0f} ms, "
              f"p99 is {p99 / single:.1f}x")  # fmt: skip
        acknowledged: set[int] = set()
        if options.soak:
            rate = options.soak_rate or rate
            acknowledged = soak(port, process.pid, pictures, rate, options.soak)
            print(f"{len(acknowledged)} people acknowledged, {missing(port, acknowledged)} missing")
    if options.soak:
        killed_in_work(folder, pictures, acknowledged)


def load(data: Path) -> list[bytes]:
    """200 portraits of LFW, or whatever lies in the folder, else the two that come with mien."""
    files = sorted((data / "lfw" / "lfw-deepfunneled").glob("*/*_0001.jpg"))[:200]
    files = files or sorted(data.glob("*.jpg"))[:200]
    if not files:
        folder = Path(str(resources.files("mien").joinpath("bundled", "pictures")))
        files = sorted(folder.glob("*.jpg"))
    return [file.read_bytes() for file in files]


def batching(recognizer: mien.Recognizer, pictures: list[bytes]) -> None:
    """The share of a picture's time that embedding faces of many requests at once would save."""
    images = [mien.read_image(picture) for picture in pictures[:32]]
    start = time.perf_counter()
    detected = [recognizer.detector.detect(image) for image in images]
    detecting = (time.perf_counter() - start) / len(images)
    crops = [
        align(image, face.landmarks, recognizer.frame)
        for image, faces in zip(images, detected, strict=True)
        for face in faces[:1]
    ]
    one, many = [], []
    for _ in range(5):
        start = time.perf_counter()
        for crop in crops:
            recognizer.embedder.embed_batch([crop])
        one.append((time.perf_counter() - start) / len(crops))
        start = time.perf_counter()
        recognizer.embedder.embed_batch(crops)
        many.append((time.perf_counter() - start) / len(crops))
    alone, together = statistics.median(one), statistics.median(many)
    print(f"detecting {1e3 * detecting:.1f} ms a picture; embedding {1e3 * alone:.2f} ms a face "
          f"alone, {1e3 * together:.2f} ms in a batch of {len(crops)}: batching could save "
          f"{100 * (alone - together) / (detecting + alone):.1f}% of the work")  # fmt: skip


def in_a_loop(
    gallery: mien.Gallery, recognizer: mien.Recognizer, pictures: list[bytes], seconds: float
) -> float:
    """Pictures a second of the library."""
    end = time.perf_counter() + seconds
    endless = (pictures[i % len(pictures)] for i in count())

    def work(picture: bytes) -> object:
        return gallery.identify(picture, recognizer)

    start, done = time.perf_counter(), 0
    for _ in ordered_map(work, endless, recognizer.threads):
        done += 1
        if time.perf_counter() > end:
            break
    return done / (time.perf_counter() - start)


def driven(data: Path, port: int, clients: int, seconds: float) -> float:
    """Pictures a second of the server, driven by a process of its own."""
    command = [sys.executable, __file__, "--data", str(data),
               "--drive", str(port), str(clients), str(seconds)]  # fmt: skip
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def drive(
    port: int, pictures: list[bytes], connections: int, seconds: float, rate: float | None = None
) -> list[float]:
    """Latencies of identifications, for so many seconds, each picture over a free connection.

    With a `rate` they are due so many a second and counted from then; else each is sent as soon as
    a connection is free. One thread, and requests made beforehand: what the clients take of the
    processors, which they share with the server, is little.
    """
    messages = [identification(picture) for picture in pictures]
    free = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    selector = selectors.DefaultSelector()
    due: dict[socket.socket, float] = {}
    got: dict[socket.socket, bytes] = {}
    latencies: list[float] = []
    number, begin = 0, time.perf_counter()
    while (now := time.perf_counter() - begin) < seconds or due:
        following = now if rate is None else number / rate
        if free and following <= now < seconds:
            connection = free.pop()
            due[connection], got[connection] = following, b""
            connection.sendall(messages[number % len(messages)])
            selector.register(connection, selectors.EVENT_READ)
            number += 1
            continue
        wait = max(0.0, min(following, seconds) - now) if free and now < seconds else 60.0
        for ready, _ in selector.select(wait):
            connection = ready.fileobj
            assert isinstance(connection, socket.socket)
            got[connection] += connection.recv(65536)
            if answered(got[connection]):
                if rate is not None or time.perf_counter() - begin < seconds:
                    latencies.append(time.perf_counter() - begin - due[connection])
                selector.unregister(connection)
                free.append(connection)
                del due[connection]
    for connection in free:
        connection.close()
    return latencies


def identification(picture: bytes) -> bytes:
    """The request, as it goes over the wire."""
    body = form(picture)
    head = (
        "POST /v1/galleries/people/identify HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answered(reply: bytes) -> bool:
    """Whether a reply is whole. Raises `RuntimeError` for one that is no success."""
    head, end, body = reply.partition(b"\r\n\r\n")
    if not end:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the server answered {head[:60]!r}")
    _, _, rest = head.lower().partition(b"content-length:")
    return len(body) >= int(rest.split(b"\r\n", 1)[0])


def soak(
    port: int, pid: int, pictures: list[bytes], rate: float, minutes: float, first: int = 0
) -> set[int]:
    """Mixed load at `rate`: searches, one in five an enrolment, of which one in ten is erased.

    People are named by numbers from `first` on. Returns those acknowledged and not erased.
    """
    acknowledged: set[int] = set()
    begin, early, told = time.perf_counter(), 0, 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for number in count(first):
        now = time.perf_counter() - begin
        if now > 60 * minutes:
            break
        if now > 60 * told:
            print(f"minute {told}: resident {resident(pid) / 1e6:.0f} MB, "
                  f"{number - first} requests", flush=True)  # fmt: skip
            told += 1
        if not early and now > 60 * min(5.0, minutes / 2):
            early = resident(pid)
        time.sleep(max(0.0, (number - first) / rate - now))
        picture = pictures[number % len(pictures)]
        subject = f"/v1/galleries/people/subjects/{number}"
        if number % 5 == 0:
            if request(connection, "POST", f"{subject}/images?choose=largest", picture) == 201:
                acknowledged.add(number)
            if number % 50 == 0 and request(connection, "DELETE", subject, None) == 200:
                acknowledged.discard(number)
        elif number % 5 == 1:
            request(connection, "POST", "/v1/group", picture)
        else:
            identify(connection, picture)
    late = resident(pid)
    print(f"soak of {minutes:g} minutes at {rate:.0f}/s: resident {early / 1e6:.0f} MB, then "
          f"{late / 1e6:.0f} MB ({100 * (late - early) / early:+.1f}%)")  # fmt: skip
    return acknowledged


def missing(port: int, acknowledged: set[int]) -> int:
    """How many of the people who were acknowledged are not there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    path = "/v1/galleries/people/subjects"
    return sum(request(connection, "GET", f"{path}/{n}", None) != 200 for n in acknowledged)


def killed_in_work(folder: Path, pictures: list[bytes], acknowledged: set[int]) -> None:
    """Kill a server that four clients enrol at; then look who is there."""
    lock = threading.Lock()
    with serve(folder) as (port, process):
        numbers = count(10_000_000)

        def client() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            for number in numbers:
                path = f"/v1/galleries/people/subjects/{number}/images?choose=largest"
                try:
                    done = request(connection, "POST", path, pictures[number % len(pictures)])
                except (OSError, http.client.HTTPException):
                    return
                if done == 201:
                    with lock:
                        acknowledged.add(number)

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(5)
        process.kill()
        for thread in threads:
            thread.join()
    with serve(folder) as (port, _):
        print(f"killed in the middle of enrolments and started again: {len(acknowledged)} people "
              f"acknowledged, {missing(port, acknowledged)} missing")  # fmt: skip


def identify(connection: http.client.HTTPConnection, picture: bytes) -> None:
    status = request(connection, "POST", "/v1/galleries/people/identify", picture)
    if status != 200:
        raise RuntimeError(f"the server answered {status}")


def request(
    connection: http.client.HTTPConnection, method: str, path: str, picture: bytes | None
) -> int:
    if picture is None:
        connection.request(method, path)
    else:
        connection.request(method, path, form(picture), {"Content-Type": FORM})
    reply = connection.getresponse()
    reply.read()
    return reply.status


def form(picture: bytes) -> bytes:
    """A picture as the one part of a form."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def resident(pid: int) -> int:
    """Bytes of memory that a process has resident (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """`mien serve` with an empty gallery: its port and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "galleries").mkdir(exist_ok=True)
    code = "from mien.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--port", str(port), "--gallery",
         str(folder / "galleries"), "--rate", "100000", "--no-keys"],
        env=os.environ | {"MIEN_HOME": str(folder)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(200):
            try:
                request(connection, "PUT", "/v1/galleries/people", None)
                break
            except OSError:
                connection.close()
                time.sleep(0.1)
        yield port, process
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main()
