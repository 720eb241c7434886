"""`scores.csv` of a run: a row for each patient, file and missing modality.

What a network finds where there is nothing: healthy phantoms, whose truth nobody has to trust.

`healthy.csv` of a run holds a row for each phantom's seed: the volume in mL that its int8 file took
for tumour.
"""

import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.folds import RIVALS, Run
from device.engine import Engine
from device.segment import segment
from glioslice.cases import MODALITIES, Case
from glioslice.cli import track
from glioslice.files import whole
from glioslice.labels import REGIONS, to_regions
from glioslice.metrics import dice, hd95
from glioslice.phantom.head import SEEDS, make_phantom


@dataclass(frozen=True)
class Score:
    """One volume by one file, `missing` a modality ("": none) that was set to 0.

    Dice, HD95 in mm and volumes in mL of WT, TC, ET, of the mask and of the expert's; `outside` is
    the mask's volume in mL in slices where the expert saw no tumour.
    """

    case: str
    precision: str
    missing: str
    dice: tuple[float, float, float]
    hd95: tuple[float, float, float]
    volume: tuple[float, float, float]
    expert: tuple[float, float, float]
    outside: float

    @property
    def mean(self) -> float:
        """The mean Dice of WT, TC, ET."""
        return sum(self.dice) / len(REGIONS)


TRIPLES = ("dice", "hd95", "volume", "expert")
COLUMNS = (
    *("case", "precision", "missing"),
    *(f"{name}_{region}" for name in TRIPLES for region in REGIONS),
    "outside",
)
assert [f.name for f in fields(Score)] == ["case", "precision", "missing", *TRIPLES, "outside"]


def score_case(run: Run, case: Case) -> Iterator[Score]:
    """Yield the scores of one of the run's own patients, of every file and missing modality.

    Nothing is missing for a rival: it is compared by one figure.
    """
    assert case.labels is not None
    for precision in run.precisions:
        [file] = run.folder.glob(f"*-{precision}.tflite")
        engine = Engine(file)
        yield score(case, segment(case.images, engine).labels, precision, "")
        if precision == "int8" and run.size not in RIVALS:
            for index, modality in enumerate(MODALITIES):
                images = case.images.copy()
                images[index] = 0
                yield score(case, segment(images, engine).labels, precision, modality)


def score(case: Case, labels: NDArray[np.uint8], precision: str, missing: str) -> Score:
    """Return the score of a mask (X, Y, Z)."""
    assert case.labels is not None
    found, truth = to_regions(labels), to_regions(case.labels)
    empty = ~case.labels.any(axis=(0, 1))
    pairs = list(zip(found, truth, strict=True))
    return Score(
        case.name,
        precision,
        missing,
        _three([round(dice(f, t), 5) for f, t in pairs]),
        _three([round(hd95(f, t), 2) for f, t in pairs]),
        _three([int(f.sum()) / 1000 for f, _ in pairs]),
        _three([int(t.sum()) / 1000 for _, t in pairs]),
        int(found[0][..., empty].sum()) / 1000,
    )


def _three(values: list[float]) -> tuple[float, float, float]:
    wt, tc, et = values
    return wt, tc, et


def write_scores(run: Run, scores: list[Score]) -> None:
    """Write the run's `scores.csv`, whole or not at all."""
    with whole(run.folder / "scores.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in scores:
            values = asdict(one)
            triples = [number for name in TRIPLES for number in values[name]]
            writer.writerow([one.case, one.precision, one.missing, *triples, one.outside])


def read_scores(run: Run) -> list[Score]:
    """Return the run's scores, none where it has not been scored."""
    path: Path = run.folder / "scores.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [_parsed(row) for row in csv.DictReader(file)]


def _parsed(row: dict[str, str]) -> Score:
    found, far, volume, expert = (
        _three([float(row[f"{name}_{region}"]) for region in REGIONS]) for name in TRIPLES
    )
    outside = float(row["outside"])
    return Score(row["case"], row["precision"], row["missing"], found, far, volume, expert, outside)


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
