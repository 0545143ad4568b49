"""Training throughput of `mien train` against a plain loop: same network, batch, loss, optimiser.

    taskset -c 0 python benchmarks/training.py

The plain loop is what one writes first: float32, default memory layout, no augmentation, no
average of the weights. mien's step changes the faces, computes in bfloat16 with channels last
where the processor has it, clips, and keeps the average. Both alternate in one process on one
thread; times are processor times, the ratio is that of medians. The idle share is the time that
the loop of a whole epoch waited for crops, memory-mapped from disk.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mien import networks
from mien.training import objectives
from mien.training.config import parse
from mien.training.learner import build
from mien.training.loop import autocast, fit, step
from mien.training.material import Material, prepare
from mien.training.objectives import Batch
from mien.training.parallel import Team
from mien.training.preparation.sets import About, Crop, cells, header, write_about, write_table

PEOPLE, PICTURES = 200, 8
TEMPLATE = ((38.0, 52.0), (74.0, 52.0), (56.0, 72.0), (42.0, 92.0), (71.0, 92.0))
CASES = (
    ("iresnet18", 64, 64, "channels = [32, 64, 128, 256]"),
    ("resnet18", 112, 32, ""),
    ("mobilenet_v2", 112, 32, ""),
    ("mobilefacenet", 112, 32, ""),
    ("inception_resnet_v1", 160, 16, ""),
    ("vgg19", 112, 8, ""),
    ("vit_tiny", 112, 32, ""),
)


def noise(folder: Path) -> None:
    """A packed set of noise: speed does not depend on what is seen."""
    count = PEOPLE * PICTURES
    random = np.random.default_rng(0)
    np.save(folder / "pixels.npy", random.integers(0, 256, (count, 112, 112, 3), np.uint8))
    rows = [
        Crop(f"p{i // PICTURES:03d}", f"{i}.png", f"{i:064x}", 1.0, 0, 0, 1, 1, 0, (0.0,) * 10, "-")
        for i in range(count)
    ]
    write_table(folder / "manifest.csv", header(Crop), [cells(row) for row in rows])
    write_about(folder, About((112, 112), TEMPLATE, "noise", "none", "only", complete=True))


def recipe_of(folder: Path, name: str, size: int, batch: int, options: str) -> str:
    return f"""
[data]
set = "{folder}"
[input]
size = {size}
[network]
name = "{name}"
options = {{ {options} }}
[sampling]
batch = {batch}
[augmentation]
rotation = 8.0
shift = 0.04
scale = 0.08
brightness = 0.15
contrast = 0.25
grey = 0.1
low_resolution = 0.2
blur = 0.1
occlusion = 0.2
[[objectives]]
name = "arcface"
[run]
threads = 1
ema = 0.99
epochs = 1
"""


def plain(material: Material, name: str, size: int, options: dict[str, object]) -> Callable:
    """One step of the loop that one writes first."""
    torch.manual_seed(0)
    network = networks.build(name, 512, size=size, **options)
    head = objectives.ArcFace(512, PEOPLE)
    optimiser = torch.optim.SGD(
        [*network.parameters(), *head.parameters()], lr=0.1, momentum=0.9, weight_decay=5e-4
    )

    def once(rows: np.ndarray) -> None:
        pixels = torch.from_numpy(material.packed.pixels[material.examples.rows[rows]])
        faces = pixels.permute(0, 3, 1, 2).float().sub(127.5).div(127.5).contiguous()
        if faces.shape[-1] != size:
            faces = torch.nn.functional.interpolate(faces, size, mode="bilinear")
        loss = head(network(faces), Batch(torch.from_numpy(material.examples.labels[rows])))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", default=",".join(case[0] for case in CASES))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        noise(folder)
        for name, size, batch, options in CASES:
            if name not in chosen.networks.split(","):
                continue
            recipe = parse(recipe_of(folder, name, size, batch, options), "benchmark")
            material = prepare(recipe, lambda items, total, unit: iter(items))
            team, learner = Team(), build(recipe, material, Team())
            precision = autocast(recipe.run.precision, team.device())
            before = plain(material, name, size, dict(recipe.network.options))
            random = np.random.default_rng(0)
            times: dict[str, list[float]] = {"plain": [], "mien": []}
            for number in range(chosen.rounds + 1):
                rows = random.permutation(len(material.examples.rows))[:batch]
                begun = time.process_time()
                before(rows)
                middle = time.process_time()
                pixels = torch.from_numpy(material.packed.pixels[material.examples.rows[rows]])
                step(recipe, learner, learner.network, material, rows, pixels, 0.1, team, precision)
                if number:  # the first warms up
                    times["plain"].append(middle - begun)
                    times["mien"].append(time.process_time() - middle)
            medians = {key: statistics.median(values) for key, values in times.items()}
            spread = {key: (max(v) - min(v)) / medians[key] for key, v in times.items()}
            print(json.dumps({
                "network": name, "size": size, "batch": batch,
                "plain_images_per_cpu_second": round(batch / medians["plain"], 1),
                "mien_images_per_cpu_second": round(batch / medians["mien"], 1),
                "ratio": round(medians["plain"] / medians["mien"], 2),
                "spread": {key: round(value, 2) for key, value in spread.items()},
            }), flush=True)  # fmt: skip
        text = recipe_of(folder, "iresnet18", 64, 64, "channels = [16, 32, 64, 128]")
        wall = time.perf_counter()
        learner, _ = fit(parse(text, "benchmark"), folder / "run")
        wall = time.perf_counter() - wall
        idle = sum(row["idle_seconds"] for row in learner.history)
        print(json.dumps({"idle_seconds": idle, "idle_share": round(idle / wall, 4)}), flush=True)


if __name__ == "__main__":
    main()
