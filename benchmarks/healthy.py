"""What a network finds where there is nothing: healthy phantoms, whose truth nobody has to trust.

`healthy.csv` of a run holds a row for each phantom's seed: the volume in mL that its int8 file took
for tumour.
"""

import csv
from pathlib import Path

import numpy as np

from benchmarks.runs import Run
from device.engine import Engine
from device.segment import segment
from glioslice.files import whole
from glioslice.phantom import SEEDS, make_phantom
from glioslice.progress import track

FILE = "healthy.csv"


def score_healthy(runs: list[Run]) -> None:
    """Write `healthy.csv` of every run."""
    engines = {run: Engine(next(run.folder.glob("*-int8.tflite"))) for run in runs}
    volumes: dict[Run, list[float]] = {run: [] for run in runs}
    for seed in track(SEEDS, "healthy phantoms"):
        images = make_phantom(seed, tumour=False).images
        for run, engine in engines.items():
            voxels = np.count_nonzero(segment(images, engine).labels)
            volumes[run].append(voxels / 1000)  # of 1 mm
    for run, found in volumes.items():
        with whole(run.folder / FILE) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["seed", "mL"])
            writer.writerows(zip(SEEDS, found, strict=True))


def read_healthy(run: Run) -> list[float]:
    """Return the volumes in mL, none where the run has not been scored."""
    path: Path = run.folder / FILE
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [float(row["mL"]) for row in csv.DictReader(file)]
