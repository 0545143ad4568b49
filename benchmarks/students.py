"""Speed of embedding networks against their teacher, side by side: float32, one thread, one face.

    taskset -c 0 python benchmarks/students.py dlib-resnet-v1 lfw-distil lfw-distil-small

The networks take turns in one process; times are processor milliseconds of the network alone,
median and quartiles, and the ratio to the first one named.
"""

import argparse
import json
import time

import numpy as np

from mien import cards
from mien.inference import open_session, to_batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=60)
    chosen = parser.parse_args()
    random = np.random.default_rng(0)
    ready = {}
    for name in chosen.models:
        card = cards.model_card(name)
        frame = card.input.frame
        assert frame is not None
        pixels = random.integers(0, 256, (1, frame.size[1], frame.size[0], 3), np.uint8)
        session = open_session(card, "fp32")
        size = next(file.bytes for file in card.files if file.precision == "fp32")
        ready[name] = (session, to_batch(card.input, pixels), size, [])
    for number in range(chosen.rounds + 5):
        for session, batch, _, times in ready.values():
            begun = time.process_time()
            session(batch)
            if number >= 5:
                times.append(1000 * (time.process_time() - begun))
    first = float(np.median(ready[chosen.models[0]][3]))
    for name, (_, _, size, times) in ready.items():
        low, middle, high = np.percentile(times, [25, 50, 75])
        row = {"model": name, "bytes": size, "cpu_ms": round(middle, 2)}
        row |= {"quartiles": [round(low, 2), round(high, 2)], "speed": round(first / middle, 2)}
        print(json.dumps(row))


if __name__ == "__main__":
    main()
