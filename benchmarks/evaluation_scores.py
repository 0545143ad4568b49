"""How long 10^8 scores take to a full DET with intervals, and how much memory.

    python benchmarks/evaluation_scores.py [--scores 100_000_000]

Scores are drawn, not read: 1% genuine, of 5,000 people, in chunks as a matcher would give them.
"""

import argparse
import resource
import time

import numpy as np

from mien.evaluation.curves import FARS, Tally, auc, eer, tally_curve, tars
from mien.evaluation.intervals import tally_intervals

PEOPLE = 5_000
CHUNK = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=int, default=100_000_000)
    count = parser.parse_args().scores
    rng = np.random.default_rng(0)
    draws = [  # made before the clock starts, used over and over
        (rng.normal(0.1, 0.1, CHUNK).clip(-1, 1).astype(np.float32),
         rng.integers(0, PEOPLE, CHUNK), rng.integers(0, PEOPLE, CHUNK))
        for _ in range(4)
    ]  # fmt: skip
    begin = time.perf_counter()
    genuine, impostor = Tally(PEOPLE), Tally(PEOPLE)
    good = draws[0][0][: CHUNK // 100] + np.float32(0.45)
    done = 0
    while done < count:
        scores, a, b = draws[done // CHUNK % 4]
        size = min(CHUNK, count - done)
        impostor.add(scores[:size], subjects=(a[:size], b[:size]))
        genuine.add(good, subjects=(a[: good.size],))
        done += size
    counted = time.perf_counter()
    rates = tally_curve(genuine, impostor)
    bounds = tally_intervals(genuine, impostor, FARS)
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{impostor.comparisons + genuine.comparisons:,} scores of {PEOPLE:,} people")
    print(f"counted in {counted - begin:.1f} s, curve and intervals in {end - counted:.1f} s")
    print(f"peak memory {peak:.2f} GB")
    print(f"EER {eer(rates):.5f} ({bounds.eer.low:.5f} .. {bounds.eer.high:.5f})")
    print(f"AUC {auc(rates):.6f} ({bounds.auc.low:.6f} .. {bounds.auc.high:.6f})")
    for key, tar in tars(rates).items():
        interval = bounds.tar_at_far[key]
        print(f"TAR at FAR {key}: {tar:.5f} ({interval.low:.5f} .. {interval.high:.5f})")


if __name__ == "__main__":
    main()
