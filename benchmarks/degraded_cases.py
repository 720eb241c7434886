"""Score the networks of the folds on worse cases than those of BraTS, for docs/accuracy.md.

    python benchmarks/degraded_cases.py --data ../shared/data/brats      # score, then the page
    python benchmarks/degraded_cases.py --data DIR --kind missing compact-1    # this run alone
    python benchmarks/degraded_cases.py                                  # the page alone

Each patient is segmented by the int8 network that was not trained on the patient, with masks that
are made as those of the shipped model of that size.

`missing`: every subset of modalities that leaves T1ce or FLAIR; the others are 0, as a board sees
them. `missing.csv` of a run holds a row for each patient and subset, also of the raw masks.

`resampled`: each modality takes the way that a scanner's series takes: in a head position of its
own (turned by up to 8 degrees and shifted by up to 8 mm), in slices of 1, 3 or 5 mm, and back to
the grid of BraTS by one linear interpolation. The way back is known exactly: what registration
adds is measured in docs/from-scanner.md. The mask is scored against the ground truth on the grid
of BraTS. `resampled.csv` of a run holds a row for each patient and thickness.
"""

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from benchmarks import ROOT
from benchmarks.accuracy import bootstrap_interval
from benchmarks.folds import FOLDS, SHOWN_SIZES, FoldRun, find_run, patients
from benchmarks.pages import fill, read_csv, table, write_csv
from benchmarks.scores import BOTH, RAW, RULES, fold_cases, segment_all_ways
from glioslice import cli
from glioslice.cases import MODALITIES, Case
from glioslice.dataset_layouts import MODALITY_TITLES, in_order
from glioslice.labels import REGIONS
from glioslice.metrics import region_dice
from glioslice.model_card import read_card, shipped_folder
from glioslice.preprocessing import brain_mask
from training.augment import MISSING

PAGE = ROOT / "docs" / "accuracy.md"
SUBSETS_FILE, RESAMPLED_FILE = "missing.csv", "resampled.csv"

SUBSETS = ((), *sorted((in_order(names.split()) for names in MISSING), key=len))
"""What is missing: nothing, then every subset that training drops, the small ones first."""

RESAMPLED_SIZE = "compact"
"""The size whose networks are scored on resampled scans."""

THICKNESSES = (0, 1, 3, 5)
"""In mm; 0 is the grid of BraTS, without any resampling."""

GOALS = {1: 0.01, 3: 0.02, 5: 0.04}
"""Largest loss of mean Dice."""

TURN, SHIFT = 8.0, 8.0
"""Largest rotation about each axis in degrees, and shift along each axis in mm."""


@dataclass(frozen=True)
class SubsetScore:
    """Dice of WT, TC, ET of a patient whose modalities `missing` were 0."""

    case: str
    missing: tuple[str, ...]
    masks: str
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean Dice of WT, TC, ET."""
        return fmean(self.dice)


@dataclass(frozen=True)
class ResampledScore:
    """Dice of WT, TC, ET of a patient whose series had slices of `thickness` mm."""

    case: str
    thickness: int
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean Dice of WT, TC, ET."""
        return fmean(self.dice)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, score and write the page."""
    parser = cli.parser(
        "Score the networks of the folds on cases that lack modalities or were resampled.",
        "python benchmarks/degraded_cases.py --data ../shared/data/brats",
    )
    parser.add_argument(
        "run", nargs="*", metavar="RUN",
        help="runs to score; default: those of compact, and of nano with missing modalities",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, help="a folder of cases; without it nothing is scored")
    parser.add_argument("--kind", choices=("missing", "resampled"), help="default: both")
    cli.run(write_degraded, parser.parse_args(argv))


def write_degraded(arguments: argparse.Namespace) -> None:
    """Score the runs if there are cases, and write the page."""
    given = [find_run(name) for name in arguments.run]
    if arguments.data and arguments.kind != "resampled":
        every = [FoldRun(size, fold) for size in SHOWN_SIZES for fold in FOLDS]
        score_subset_runs(given or every, arguments.data)
    if arguments.data and arguments.kind != "missing":
        every = [FoldRun(RESAMPLED_SIZE, fold) for fold in FOLDS]
        score_resampled_runs(given or every, arguments.data)
    fill(PAGE, {"missing": subset_table(), "resampled": resampled_table()})
    print(f"written: {PAGE.name}")


def packed_file(run: FoldRun) -> Path:
    """Return the run's int8 file."""
    [file] = run.folder.glob("*-int8.tflite")
    return file


def shipped_masks(size: str) -> str:
    """Return how the masks of the shipped model of a size are made."""
    return BOTH if read_card(shipped_folder(size)).mirroring else RULES


def rounded_dice(labels: NDArray[np.uint8], case: Case) -> tuple[float, ...]:
    """Return the Dice of WT, TC, ET of a mask (X, Y, Z)."""
    assert case.labels is not None
    dice = region_dice(labels, case.labels)
    return tuple(round(dice[region], 5) for region in REGIONS)


def score_subset_runs(runs: Sequence[FoldRun], data: Path) -> None:
    """Write `missing.csv` of each run; raises GliosliceError if a patient is not in `data`."""
    scores: dict[FoldRun, list[SubsetScore]] = {run: [] for run in runs}
    for fold in sorted({run.fold for run in runs}):
        for case in fold_cases(fold, data, "missing modalities"):
            for run in (one for one in runs if one.fold == fold):
                scores[run] += score_subsets(run, case)
    for run, made in scores.items():
        write_subset_scores(run, made)


def score_subsets(run: FoldRun, case: Case) -> Iterator[SubsetScore]:
    """Yield the scores of a patient for each subset."""
    ways = (RAW, shipped_masks(run.size))
    for missing in SUBSETS:
        images = case.images.copy()
        images[[modality in missing for modality in MODALITIES]] = 0
        for way, labels in segment_all_ways(images, packed_file(run), ways):
            yield SubsetScore(case.name, missing, way, rounded_dice(labels, case))


def write_subset_scores(run: FoldRun, scores: Sequence[SubsetScore]) -> None:
    """Write the scores of a run."""
    rows = ((one.case, " ".join(one.missing), one.masks, *one.dice) for one in scores)
    write_csv(run.folder / SUBSETS_FILE, ("case", "missing", "masks", *REGIONS), rows)


def read_subset_scores(run: FoldRun) -> list[SubsetScore]:
    """Return the scores of a run; an empty list if it has not been scored."""
    return [
        SubsetScore(
            row["case"],
            tuple(row["missing"].split()),
            row["masks"],
            tuple(float(row[region]) for region in REGIONS),
        )
        for row in read_csv(run.folder / SUBSETS_FILE)
    ]


def subset_table() -> str:
    """Return the mean Dice for each size and subset, and what it loses, paired by patient."""
    rows = []
    for size in SHOWN_SIZES:
        every = [one for fold in FOLDS for one in read_subset_scores(FoldRun(size, fold))]
        raw = [one for one in every if one.masks == RAW]
        scores = [one for one in every if one.masks != RAW] or raw
        whole = {one.case: one.mean for one in scores if not one.missing}
        for missing in SUBSETS:
            if not (some := [one for one in scores if one.missing == missing]):
                continue
            before = fmean(one.mean for one in raw if one.missing == missing)
            dice = [f"{fmean(one.dice[i] for one in some):.3f}" for i in range(len(REGIONS))]
            changes = [one.mean - whole[one.case] for one in some]
            low, high = bootstrap_interval(changes)
            change = f"{fmean(changes):+.3f} ({low:+.3f} to {high:+.3f})" if missing else ""
            present = ", ".join(MODALITY_TITLES[m] for m in MODALITIES if m not in missing)
            mean = f"{fmean(one.mean for one in some):.3f}"
            rows.append(
                [size, some[0].masks, len(some), present, *dice, mean, change, f"{before:.3f}"]
            )
    head = ("int8", "masks", "patients", "sequences", *REGIONS, "mean")
    return table((*head, "change (95 % interval)", "mean of raw masks"), rows)


def score_resampled_runs(runs: Sequence[FoldRun], data: Path) -> None:
    """Write `resampled.csv` of each run; raises GliosliceError if a patient is not in `data`."""
    for run in runs:
        scores: list[ResampledScore] = []
        for case in fold_cases(run.fold, data, "resampled"):
            scores += score_thicknesses(run, case)
        write_resampled_scores(run, scores)


def score_thicknesses(run: FoldRun, case: Case) -> Iterator[ResampledScore]:
    """Yield the scores of a patient for each thickness."""
    way = shipped_masks(run.size)
    for thickness in THICKNESSES:
        images = resample_case(case, thickness) if thickness else case.images
        [(_, labels)] = segment_all_ways(images, packed_file(run), (way,))
        yield ResampledScore(case.name, thickness, rounded_dice(labels, case))


def resample_case(case: Case, thickness: int) -> NDArray[np.float32]:
    """Return the images (4, X, Y, Z) after the way through a scanner's series and back.

    The skull is stripped afterwards, with the mask of BraTS. Head positions derive from the case's
    name, so that each thickness has the same.
    """
    seed = int.from_bytes(hashlib.sha256(case.name.encode()).digest()[:8], "big")
    random = np.random.default_rng(seed)
    images = np.stack(
        [resample_series(image, thickness, head_position(image.shape, random))
         for image in case.images]
    )  # fmt: skip
    return images * brain_mask(case.images)


def head_position(shape: tuple[int, ...], random: np.random.Generator) -> sitk.Euler3DTransform:
    """Return a random rotation about the middle of a volume, and shift."""
    turn = np.radians(random.uniform(-TURN, TURN, 3))
    shift = random.uniform(-SHIFT, SHIFT, 3)
    middle = [(size - 1) / 2 for size in shape]
    return sitk.Euler3DTransform(middle, *turn.tolist(), shift.tolist())


def resample_series(
    image: NDArray[np.float32], thickness: int, position: sitk.Euler3DTransform
) -> NDArray[np.float32]:
    """Return an image (X, Y, Z) of 1 mm voxels after a series of thick slices and back."""
    volume = sitk.GetImageFromArray(image.T)  # SimpleITK's arrays are (Z, Y, X)
    fine = sitk.Resample(volume, volume, position, sitk.sitkLinear, 0.0)
    slices = sitk.GetArrayFromImage(fine)
    count = len(slices) // thickness
    thick = slices[: count * thickness].reshape(count, thickness, *slices.shape[1:]).mean(axis=1)
    series = sitk.GetImageFromArray(thick.astype(np.float32))
    series.SetSpacing((1.0, 1.0, float(thickness)))
    series.SetOrigin((0.0, 0.0, (thickness - 1) / 2))
    back = sitk.Resample(series, volume, position.GetInverse(), sitk.sitkLinear, 0.0)
    resampled: NDArray[np.float32] = sitk.GetArrayFromImage(back).T
    return resampled


def write_resampled_scores(run: FoldRun, scores: Sequence[ResampledScore]) -> None:
    """Write the scores of a run."""
    rows = ((one.case, one.thickness, *one.dice) for one in scores)
    write_csv(run.folder / RESAMPLED_FILE, ("case", "thickness", *REGIONS), rows)


def read_resampled_scores(run: FoldRun) -> list[ResampledScore]:
    """Return the scores of a run; an empty list if it has not been scored."""
    return [
        ResampledScore(row["case"], int(row["thickness"]), tuple(float(row[r]) for r in REGIONS))
        for row in read_csv(run.folder / RESAMPLED_FILE)
    ]


def resampled_table() -> str:
    """Return mean Dice by thickness, the loss paired by patient, and its goal."""
    scores = [one for fold in FOLDS for one in read_resampled_scores(FoldRun(RESAMPLED_SIZE, fold))]
    grade = {patient.case: patient.grade for patient in patients()}
    whole = {one.case: one.mean for one in scores if not one.thickness}
    rows = []
    for thickness in THICKNESSES:
        some = [one for one in scores if one.thickness == thickness]
        dice = [f"{fmean(one.dice[i] for one in some):.3f}" for i in range(len(REGIONS))]
        low_grade = fmean(one.mean for one in some if grade[one.case] == "low")
        changes = [one.mean - whole[one.case] for one in some]
        low, high = bootstrap_interval(changes)
        rows.append([
            f"{thickness} mm" if thickness else "as BraTS has it", len(some), *dice,
            f"{fmean(one.mean for one in some):.3f}", f"{low_grade:.3f}",
            f"{fmean(changes):+.3f} ({low:+.3f} to {high:+.3f})" if thickness else "",
            f"-{GOALS[thickness]:.2f}" if thickness else "",
        ])  # fmt: skip
    head = (
        f"{RESAMPLED_SIZE} int8, slices",
        "patients",
        *REGIONS,
        "mean",
        "low grade",
        "change",
        "goal",
    )
    return table(head, rows)


if __name__ == "__main__":
    main()
