"""Score a run's packed files, and read and write the tables of scores in its folder.

`scores.csv` holds a row for each patient, file, and way to make masks of its logits. `healthy.csv`
holds a row for each healthy phantom and way: the volume in mL that the int8 file took for tumour.
Rules are those of every shipped model, whatever the card of a run says.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import folds
from benchmarks.folds import FoldRun, held_out_cases
from benchmarks.pages import read_csv, write_csv
from device.engine import Engine
from device.segment import segment
from glioslice.cases import Case, case_digest, find_cases, read_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS, to_regions
from glioslice.metrics import dice, hd95
from glioslice.model_card import read_card
from glioslice.phantom.head import SEEDS, make_phantom
from glioslice.postprocessing import STANDARD_RULES, postprocess

TRIPLES = ("dice", "hd95", "volume", "expert")

RAW, RULES, MIRRORED, BOTH = "raw", "rules", "mirrored", "mirrored, rules"
"""How masks are made: as the network gives them, post-processed, with mirroring, or with both."""

WAYS = (RAW, RULES, MIRRORED, BOTH)

COLUMNS = (
    *("case", "precision", "masks"),
    *(f"{name}_{region}" for name in TRIPLES for region in REGIONS),
    "outside",
)

HEALTHY_FILE = "healthy.csv"


@dataclass(frozen=True)
class Score:
    """One volume segmented by one file; `masks` is one of WAYS.

    Dice, HD95 in mm, and volumes in mL of the mask and of the ground truth (`expert`), each for WT,
    TC and ET. `outside` is the mask's volume in mL in slices without tumour in the ground truth.
    """

    case: str
    precision: str
    masks: str
    dice: tuple[float, float, float]
    hd95: tuple[float, float, float]
    volume: tuple[float, float, float]
    expert: tuple[float, float, float]
    outside: float

    @property
    def mean(self) -> float:
        """The mean Dice of WT, TC, ET."""
        return sum(self.dice) / len(REGIONS)


assert [f.name for f in fields(Score)] == ["case", "precision", "masks", *TRIPLES, "outside"]


def score_case(run: FoldRun, case: Case) -> Iterator[Score]:
    """Yield the scores of a patient of the run's fold: of int8 files in all WAYS, of others raw.

    Other seeds and baseline networks are compared by one figure: the raw masks of the int8 file.
    """
    for precision in run.precisions:
        [file] = run.folder.glob(f"*-{precision}.tflite")
        ways = WAYS if precision == "int8" and run.is_main else (RAW,)
        for masks, labels in segment_all_ways(case.images, file, ways):
            yield score_mask(case, labels, precision, masks)


def segment_all_ways(
    images: NDArray[np.float32], file: Path, ways: Sequence[str] = WAYS
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the labels (X, Y, Z) that a file gives in each of `ways`."""
    for mirroring, raw, processed in ((False, RAW, RULES), (True, MIRRORED, BOTH)):
        if not {raw, processed} & set(ways):
            continue
        labels = segment(images, Engine(file, mirroring=mirroring), raw=True).labels
        if raw in ways:
            yield raw, labels
        if processed in ways:
            yield processed, postprocess(labels, STANDARD_RULES).labels


def score_mask(case: Case, labels: NDArray[np.uint8], precision: str, masks: str) -> Score:
    """Return the score of a mask (X, Y, Z)."""
    assert case.labels is not None
    found, truth = to_regions(labels), to_regions(case.labels)
    empty = ~case.labels.any(axis=(0, 1))
    pairs = list(zip(found, truth, strict=True))
    return Score(
        case.name,
        precision,
        masks,
        _triple([round(dice(f, t), 5) for f, t in pairs]),
        _triple([round(hd95(f, t), 2) for f, t in pairs]),
        _triple([int(f.sum()) / 1000 for f, _ in pairs]),
        _triple([int(t.sum()) / 1000 for _, t in pairs]),
        int(found[0][..., empty].sum()) / 1000,
    )


def _triple(values: list[float]) -> tuple[float, float, float]:
    wt, tc, et = values
    return wt, tc, et


def fold_cases(fold: int, data: Path, title: str) -> Iterator[Case]:
    """Yield the patients of a fold; raises GliosliceError if one is not in `data`."""
    found = {files.name: files for files in find_cases(data)}
    for name in track(held_out_cases(fold), f"{title}, fold {fold}"):
        if name not in found:
            raise GliosliceError(f"{data}: lacks {name} of fold {fold}")
        yield read_case(found[name])


def check_held_out(run: FoldRun, case: Case) -> None:
    """Raise GliosliceError if a run was trained on a patient of the fold that it holds out."""
    if case_digest(case) in read_card(run.folder).trained_on:
        raise GliosliceError(f"{run.name}: was trained on {case.name}, which belongs to its fold")


def write_scores(run: FoldRun, scores: list[Score]) -> None:
    """Write the run's `scores.csv` atomically."""
    rows = (
        (
            *(score.case, score.precision, score.masks),
            *(number for name in TRIPLES for number in getattr(score, name)),
            score.outside,
        )
        for score in scores
    )
    write_csv(run.folder / "scores.csv", COLUMNS, rows)


def read_scores(run: FoldRun) -> list[Score]:
    """Return the run's scores; an empty list if it has not been scored."""
    return [_parse_row(row) for row in read_csv(run.folder / "scores.csv")]


def _parse_row(row: dict[str, str]) -> Score:
    found, far, volume, expert = (
        _triple([float(row[f"{name}_{region}"]) for region in REGIONS]) for name in TRIPLES
    )
    outside = float(row["outside"])
    return Score(row["case"], row["precision"], row["masks"], found, far, volume, expert, outside)


def score_healthy(networks: Mapping[Path, Path]) -> None:
    """Write a table of healthy phantoms, as `healthy_file` names it, for each int8 file."""
    volumes: dict[Path, list[tuple[int, str, float]]] = {table: [] for table in networks}
    for seed in track(SEEDS, "healthy phantoms"):
        images = make_phantom(seed, tumour=False).images
        for table, network in networks.items():
            for masks, labels in segment_all_ways(images, network):
                millilitres = int(np.count_nonzero(labels)) / 1000  # voxels of 1 mm
                volumes[table].append((seed, masks, millilitres))
    for table, found in volumes.items():
        write_csv(table, ("seed", "masks", "mL"), found)


def healthy_file(run: FoldRun | str) -> Path:
    """Return the table of healthy phantoms of a run, or of a shipped size."""
    if isinstance(run, str):
        return folds.FOLDS_FOLDER / f"{run}-shipped-{HEALTHY_FILE}"
    return run.folder / HEALTHY_FILE


def read_healthy(run: FoldRun | str, masks: str = RAW) -> list[float]:
    """Return the volumes in mL; an empty list if there is no table."""
    rows = read_csv(healthy_file(run))
    return [float(row["mL"]) for row in rows if row["masks"] == masks]
