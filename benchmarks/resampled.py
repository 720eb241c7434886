"""Score the networks of the folds on scans that were resampled, for docs/accuracy.md.

    python benchmarks/resampled.py --data ../shared/data/brats       # score, then write the page
    python benchmarks/resampled.py                                   # write the page alone

Each modality of a patient takes the way that a scanner's series takes: in a head position of its
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
from benchmarks.folds import FOLDS, FoldRun, patients
from benchmarks.pages import fill, read_csv, table, write_csv
from benchmarks.scores import BOTH, RULES, fold_cases, segment_all_ways
from glioslice import cli
from glioslice.cases import Case
from glioslice.labels import REGIONS
from glioslice.metrics import region_dice
from glioslice.model_card import read_card, shipped_folder
from glioslice.preprocessing import brain_mask

PAGE = ROOT / "docs" / "accuracy.md"
FILE = "resampled.csv"
THICKNESSES = (0, 1, 3, 5)
"""In mm; 0 is the grid of BraTS, without any resampling."""
GOALS = {1: 0.01, 3: 0.02, 5: 0.04}
"""Largest loss of mean Dice."""
TURN, SHIFT = 8.0, 8.0
"""Largest rotation about each axis in degrees, and shift along each axis in mm."""


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
        "Score the networks of the folds on resampled scans.",
        "python benchmarks/resampled.py --data ../shared/data/brats",
    )
    parser.add_argument("--size", default="compact", help="compact (default) or nano")
    parser.add_argument("--data", type=Path, help="a folder of cases; without it nothing is scored")
    cli.run(write_resampled, parser.parse_args(argv))


def write_resampled(arguments: argparse.Namespace) -> None:
    """Score the networks if there are cases, and write the page."""
    if arguments.data:
        score_runs([FoldRun(arguments.size, fold) for fold in FOLDS], arguments.data)
    fill(PAGE, {"resampled": resampled_table()})


def score_runs(runs: Sequence[FoldRun], data: Path) -> None:
    """Write `resampled.csv` of each run; raises GliosliceError if a patient is not in `data`."""
    for run in runs:
        scores: list[ResampledScore] = []
        for case in fold_cases(run.fold, data, "resampled"):
            scores += score_case(run, case)
        write_scores(run, scores)


def score_case(run: FoldRun, case: Case) -> Iterator[ResampledScore]:
    """Yield the scores of a patient for each thickness."""
    assert case.labels is not None
    [file] = run.folder.glob("*-int8.tflite")
    way = BOTH if read_card(shipped_folder(run.size)).mirroring else RULES
    for thickness in THICKNESSES:
        images = resample_case(case, thickness) if thickness else case.images
        [(_, labels)] = segment_all_ways(images, file, (way,))
        dice = region_dice(labels, case.labels)
        values = tuple(round(dice[region], 5) for region in REGIONS)
        yield ResampledScore(case.name, thickness, values)


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


def write_scores(run: FoldRun, scores: Sequence[ResampledScore]) -> None:
    """Write the scores of a run."""
    rows = ((one.case, one.thickness, *one.dice) for one in scores)
    write_csv(run.folder / FILE, ("case", "thickness", *REGIONS), rows)


def read_resampled_scores(run: FoldRun) -> list[ResampledScore]:
    """Return the scores of a run; an empty list if it has not been scored."""
    return [
        ResampledScore(row["case"], int(row["thickness"]), tuple(float(row[r]) for r in REGIONS))
        for row in read_csv(run.folder / FILE)
    ]


def resampled_table(size: str = "compact") -> str:
    """Return mean Dice by thickness, the loss paired by patient, and its goal."""
    scores = [one for fold in FOLDS for one in read_resampled_scores(FoldRun(size, fold))]
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
    head = (f"{size} int8, slices", "patients", *REGIONS, "mean", "low grade", "change", "goal")
    return table(head, rows)


if __name__ == "__main__":
    main()
