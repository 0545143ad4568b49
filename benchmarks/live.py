"""A live camera against detecting each of its pictures: how many a second, and how late.

    python benchmarks/live.py [--seconds 5] [--rounds 5]

JPEGs of 640 x 480 with two faces, one of them enrolled. "Plain detection" decodes a picture and
searches it for faces, in one thread. The server on loopback also embeds, follows, decides and
answers, over its WebSocket, once with two pictures on their way as the web page has it, and once
with twice as many pictures a second as it can look at: then it drops some, and what it answers is
never older than the work on two.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
from websockets.sync.client import ClientConnection, connect

import mien
from mien.types import Image
from server import quantile, serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    frames = pictures()
    recognizer = mien.load(threads=1)
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as (port, _):
        with mien.Client(f"http://127.0.0.1:{port}") as client:
            client.gallery("people").enroll("Eileen", portrait("eileen-collins"))
        ratios = []
        for number in range(1, options.rounds + 1):
            plain = detected(recognizer, frames, options.seconds)
            live, ages = in_turn(port, frames, options.seconds)
            ratios.append(live / plain)
            print(f"round {number}: plain detection {plain:.1f} pictures/s, live {live:.1f}, "
                  f"ratio {ratios[-1]:.2f}; {told(ages)}")  # fmt: skip
        print(f"live to plain detection: median {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip
        answered, dropped, ages = too_fast(port, frames, options.seconds, 2 * live)
        print(f"{2 * live:.0f} pictures/s sent: {answered / options.seconds:.1f}/s answered, "
              f"{dropped} of {answered + dropped} dropped; {told(ages)}")  # fmt: skip


def told(ages: list[float]) -> str:
    return (
        f"answered after {1e3 * statistics.median(ages):.0f} ms (median), "
        f"{1e3 * quantile(ages, 0.99):.0f} (p99), {1e3 * max(ages):.0f} (all)"
    )


def portrait(name: str) -> Image:
    folder = resources.files("mien").joinpath("bundled", "pictures")
    return mien.read_image(folder.joinpath(f"{name}.jpg").read_bytes())


def pictures() -> list[bytes]:
    """A camera that sways before two people."""
    wide = np.concatenate(
        [portrait(name).pixels[:480] for name in ("eileen-collins", "grace-hopper")], axis=1
    )
    lefts = (round(192 + 60 * np.sin(2 * np.pi * number / 50)) for number in range(50))
    views = (np.ascontiguousarray(wide[:, left : left + 640]) for left in lefts)
    return [mien.encode_image(Image(view), "jpeg", 80) for view in views]


def detected(recognizer: mien.Recognizer, frames: list[bytes], seconds: float) -> float:
    """Pictures a second of decoding and detection alone."""
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        recognizer.detector.detect(mien.read_image(frames[done % len(frames)]))
        done += 1
    return done / (time.perf_counter() - begin)


@contextlib.contextmanager
def camera(port: int) -> Iterator[ClientConnection]:
    """A camera that was let in."""
    address = f"ws://127.0.0.1:{port}/v1/galleries/people/live"
    with connect(address, proxy=None) as socket:
        socket.send("{}")
        if json.loads(socket.recv())["kind"] != "ready":
            raise RuntimeError("the camera was refused")
        yield socket


def in_turn(port: int, frames: list[bytes], seconds: float) -> tuple[float, list[float]]:
    """Pictures a second with two on their way, and how old each was when it was answered."""
    ages: list[float] = []
    sent: dict[int, float] = {}
    with camera(port) as socket:
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            while len(sent) < 2:
                number = len(ages) + len(sent)
                sent[number] = time.perf_counter()
                socket.send(frames[number % len(frames)])
            scene = json.loads(socket.recv())
            ages.append(time.perf_counter() - sent.pop(scene["frame"]))
        return len(ages) / (time.perf_counter() - begin), ages


def too_fast(
    port: int, frames: list[bytes], seconds: float, rate: float
) -> tuple[int, int, list[float]]:
    """How many are answered and how many dropped at a steady rate; how old the answered were."""
    sent: list[float] = []
    ages: list[float] = []
    dropped = 0
    with camera(port) as socket:

        def send() -> None:
            begin = time.perf_counter()
            while (now := time.perf_counter() - begin) < seconds:
                if len(sent) <= now * rate:
                    sent.append(time.perf_counter())
                    socket.send(frames[len(sent) % len(frames)])
                else:
                    time.sleep(len(sent) / rate - now)

        sender = threading.Thread(target=send)
        sender.start()
        while True:
            scene = json.loads(socket.recv())
            ages.append(time.perf_counter() - sent[scene["frame"]])
            dropped = scene["dropped"]
            if not sender.is_alive() and scene["frame"] == len(sent) - 1:
                break
        sender.join()
    return len(ages), dropped, ages


if __name__ == "__main__":
    main()
