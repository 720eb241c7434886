"""Measure the way from a scanner's series to a mask in its space, for docs/from-scanner.md.

    python benchmarks/scanner_studies.py --data ../shared/data/brats PATIENT ...   # and measure
    python benchmarks/scanner_studies.py                # write the page from the committed tables

A simulated scanner puts a skull around each patient's brain, turns and shifts the head before each
sequence, and cuts it into slices of 1, 3 and 5 mm. `glioslice prepare` makes a case of them, the
shipped network segments it, and the mask comes back to T1ce. The direct way segments the patient as
the data set has it and brings the mask to T1ce by the true transform; both are compared with the
experts' mask in that space. `benchmarks/studies/` holds a row for each study, and one for each
registration that quality control judged, right or broken on purpose.
"""

import argparse
import csv
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import ROOT
from benchmarks.pages import fill, table
from device.engine import Engine
from device.segment import segment
from glioslice import cli
from glioslice.cases import MODALITIES, Case, read_case
from glioslice.errors import GliosliceError
from glioslice.files import atomic_path
from glioslice.labels import REGIONS
from glioslice.metrics import region_dice
from glioslice.model_card import find_model
from glioslice.nifti import Space
from glioslice.phantom.skull import add_skull
from glioslice.preprocessing import brain_mask
from scanner.pipeline import Prepared, prepare_case
from scanner.quality_control import Quality, judge
from scanner.registration import Registration, register
from scanner.restore import restore_labels
from scanner.volumes import (
    Grid,
    Matrix,
    Volume,
    Voxels,
    displacement,
    region_on_grid,
    resample,
    rotation_angle,
)

FOLDER = ROOT / "benchmarks" / "studies"
PAGE = ROOT / "docs" / "from-scanner.md"

THICKNESS = 1, 3, 5
SEQUENCES = {"four": MODALITIES, "T1ce and FLAIR": ("flair", "t1ce")}
MAX_TURN, MAX_MOVE = 8.0, 8.0
"""Degrees and mm by which the patient moves at most before each sequence."""

PROBES = np.array([[60, 0, 0], [-60, 0, 0], [0, 70, 0], [0, -70, 0], [0, 0, 50], [0, 0, -50]])
"""Points of the brain's surface relative to its centre, in mm, where errors are measured."""

FIELDS = (
    "case", "mm", "sequences", "error_mm", "error_degrees", "brain_dice",
    "direct_wt", "direct_tc", "direct_et", "scanner_wt", "scanner_tc", "scanner_et", "agreement",
    "cpu_seconds", "peak_mb",
)  # fmt: skip
QUALITY_FIELDS = (
    "case", "mm", "sequence", "fault", "coverage", "edges", "gain", "angle", "shift"
)  # fmt: skip


@dataclass(frozen=True)
class Acquisition:
    """A series as a volume; `pose` maps points of the series to points of the head."""

    volume: Volume
    pose: Matrix


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, measure and write the page."""
    parser = cli.parser(
        "Measure the way from a scanner's series to a mask in its space.",
        "python benchmarks/scanner_studies.py --data ../shared/data/brats BraTS2021_00003",
    )
    parser.add_argument("patients", nargs="*", metavar="PATIENT", help="folders in --data")
    parser.add_argument("--data", type=Path, help="a folder of cases")
    cli.run(run_command, parser.parse_args(argv))


def run_command(arguments: argparse.Namespace) -> None:
    """Measure the patients, if any are named, and write the page."""
    if bool(arguments.patients) != bool(arguments.data):
        raise GliosliceError("name --data and the patients in it, or neither")
    if arguments.patients:
        measure([arguments.data / name for name in arguments.patients])
    fill(PAGE, {"scanner": study_table(), "quality": quality_table()})
    print(f"written: {PAGE.name}")


def measure(paths: Sequence[Path]) -> None:
    """Write both tables."""
    engine = Engine(find_model(None), threads=1)
    studies: list[dict[str, object]] = []
    judged: list[dict[str, object]] = []
    other: Mapping[str, Acquisition] = {}
    for index, path in enumerate(cli.track(paths, "patients")):
        case = read_case(path)
        head = Volume4(add_skull(case.images, index), case.space)
        for thickness in reversed(THICKNESS):
            rng = np.random.default_rng([index, thickness])
            series = {m: acquire(head.sequence(m), random_pose(rng), thickness) for m in MODALITIES}
            rows, prepared = measure_study(case, series, thickness, engine)
            studies += rows
            judged += judge_all(case, series, prepared, thickness, other)
            write_table("studies", FIELDS, studies)
            write_table("quality", QUALITY_FIELDS, judged)
        other = series


@dataclass(frozen=True)
class Volume4:
    """The head with its skull, (4, X, Y, Z) in LPS."""

    images: Voxels
    space: Space

    def sequence(self, modality: str) -> Volume:
        """Return one modality, with the centre of the volume at the origin."""
        image = self.images[MODALITIES.index(modality)]
        x, y, z = image.shape
        return Volume(image, Grid((x, y, z), Space.lps((x, y, z)).affine))


def random_pose(rng: np.random.Generator, turn: float = MAX_TURN, move: float = MAX_MOVE) -> Matrix:
    """Return a rigid transform of at most `turn` degrees and `move` mm."""
    axis, direction = rng.standard_normal((2, 3))
    return rigid(axis, rng.uniform(0.3, 1) * turn, direction, rng.uniform(0.3, 1) * move)


def rigid(
    axis: NDArray[np.float64], degrees: float, direction: NDArray[np.float64], mm: float
) -> Matrix:
    """Return the turn about `axis` by `degrees`, then the shift along `direction` by `mm`."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = mm * direction / np.linalg.norm(direction)
    return matrix


def acquire(
    head: Volume,
    pose: Matrix,
    thickness: float,
    *,
    in_plane: float = 1.0,
    gap: float = 0.0,
    field: tuple[int, int] = (240, 240),
    oblique: Matrix | None = None,
) -> Acquisition:
    """Return what a scanner gives of a head that lies at `pose`: slices of `thickness` mm.

    Each slice is the mean of the tissue in it; between two slices lies a gap. `field` is the number
    of columns and rows, `oblique` turns the planes, which are axial without it.
    """
    length = head.grid.shape[2] * head.grid.spacing[2]
    step = thickness + gap
    count = int(length // step)
    affine = np.diag([-in_plane, -in_plane, step, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array([*field, count]) - 1) / 2)
    if oblique is not None:
        affine = oblique @ affine
    grid = Grid((*field, count), affine)
    parts = max(1, round(thickness))
    # Samples of the slice alone: what lies in the gap between two slices is not measured.
    slab = [
        resample(head, Grid(grid.shape, grid.affine @ _shift(offset / step)), pose)
        for offset in (np.arange(parts) + 0.5) / parts * thickness - thickness / 2
    ]
    return Acquisition(Volume(np.mean(slab, axis=0, dtype=np.float32), grid), pose)


def _shift(voxels: float) -> Matrix:
    """Return the shift along the slice axis."""
    shift = np.eye(4)
    shift[2, 3] = voxels
    return shift


def measure_study(
    case: Case, series: Mapping[str, Acquisition], thickness: int, engine: Engine
) -> tuple[list[dict[str, object]], Prepared]:
    """Return a row for each choice of sequences, and the case of all four.

    Each sequence is registered for itself, so the case of two is that of four without the others.
    """
    started = time.process_time()
    prepared = prepare_case({m: s.volume for m, s in series.items()})
    seconds = time.process_time() - started
    x, y, z = case.images.shape[1:]
    head = Grid((x, y, z), Space.lps((x, y, z)).affine)
    t1ce = series["t1ce"]
    to_head = t1ce.pose @ prepared.spaces["t1ce"].matrix
    brain = region_on_grid(brain_mask(case.images), head, prepared.grid, to_head)
    assert case.labels is not None
    on_t1ce = t1ce.volume.grid
    truth = restore_labels(case.labels, head, on_t1ce, np.linalg.inv(t1ce.pose))
    rows: list[dict[str, object]] = []
    for name, wanted in SEQUENCES.items():
        images = np.zeros((4, *prepared.grid.shape), np.float32)
        plain = np.zeros_like(case.images)
        for modality in wanted:
            index = MODALITIES.index(modality)
            images[index], plain[index] = prepared.images[modality], case.images[index]
        direct = restore_labels(
            segment(plain, engine).labels, head, on_t1ce, np.linalg.inv(t1ce.pose)
        )
        found = restore_labels(
            segment(images, engine).labels,
            prepared.grid, on_t1ce, prepared.spaces["t1ce"].matrix,
        )  # fmt: skip
        errors = [registration_error(series, prepared, m) for m in wanted if m != "t1ce"]
        row: dict[str, object] = {"case": case.name, "mm": thickness, "sequences": name}
        row |= {
            "error_mm": np.mean([mm for mm, _ in errors]),
            "error_degrees": np.mean([degrees for _, degrees in errors]),
            "brain_dice": dice(brain, prepared.brain),
            "agreement": dice(direct > 0, found > 0),
            "cpu_seconds": seconds,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        for way, labels in (("direct", direct), ("scanner", found)):
            scores = region_dice(labels, truth)
            row |= {f"{way}_{region.lower()}": scores[region] for region in REGIONS}
        rows.append(row)
    return rows, prepared


def registration_error(
    series: Mapping[str, Acquisition], prepared: Prepared, modality: str
) -> tuple[float, float]:
    """Return the error of a sequence against T1ce in mm, at the brain's surface, and degrees."""
    ways = [series[m].pose @ prepared.spaces[m].matrix for m in (modality, "t1ce")]
    error = np.linalg.inv(ways[1]) @ ways[0]
    return float(np.mean([displacement(error, p) for p in PROBES])), rotation_angle(error)


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the Dice of two regions."""
    total = int(one.sum() + other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def judge_all(
    case: Case,
    series: Mapping[str, Acquisition],
    prepared: Prepared,
    thickness: int,
    other: Mapping[str, Acquisition],
) -> list[dict[str, object]]:
    """Return a row for each registration of the study, and of thick slices for each fault."""
    rows = []
    for modality, quality in prepared.quality.items():
        rows.append(quality_row(case.name, thickness, modality, "", quality))
    if thickness != THICKNESS[-1]:
        return rows
    t1ce = series["t1ce"].volume
    to_case = np.linalg.inv(prepared.spaces["t1ce"].matrix)
    brain = region_on_grid(prepared.brain, prepared.grid, t1ce.grid, to_case)
    for fault, moving, registration in broken(t1ce, series["flair"].volume, brain, other):
        quality = judge(t1ce, moving, brain, t1ce.grid, registration)
        rows.append(quality_row(case.name, thickness, "flair", fault, quality))
    return rows


def broken(
    t1ce: Volume, flair: Volume, brain: NDArray[np.bool_], other: Mapping[str, Acquisition]
) -> Iterator[tuple[str, Volume, Registration]]:
    """Yield each fault: a FLAIR that does not belong on this T1ce, or does not lie on it."""
    mirrored = Volume(flair.voxels[::-1].copy(), flair.grid)
    yield "mirrored left to right", mirrored, register(t1ce, mirrored, brain)
    half = flair.voxels.copy()
    half[..., : half.shape[2] // 2] = 0
    lower = Volume(half, flair.grid)
    yield "half a head", lower, register(t1ce, lower, brain)
    right = register(t1ce, flair, brain)
    off = right.matrix @ rigid(np.array([1.0, 0.5, 0.2]), 6.0, np.array([0.3, 1.0, 0.5]), 8.0)
    yield (
        "search ended 6 degrees and 8 mm off",
        flair,
        Registration(off, right.before, right.after, right.angle, right.shift),
    )
    cylinder = Volume(limb(flair), flair.grid)
    yield "a limb", cylinder, register(t1ce, cylinder, brain)
    if other:
        foreign = other["flair"].volume
        yield "another patient", foreign, register(t1ce, foreign, brain)


def limb(like: Volume) -> Voxels:
    """Return a limb in cross-section: skin, fat, muscle and two bones along the slice axis."""
    x, y, z = like.grid.shape
    across, front = np.meshgrid(np.arange(x) - x / 2, np.arange(y) - y / 2, indexing="ij")
    radius = np.hypot(across, front * 1.15)
    plane = np.where(radius < 62, 900.0, 5.0)
    plane[radius < 52] = 420.0
    for centre in (-14, 18):
        bone = np.hypot(across - centre, front - centre / 3)
        plane[bone < 14] = 40.0
        plane[bone < 10] = 750.0
    noise = np.random.default_rng(0).normal(0, 12, (x, y, z))
    return np.asarray(np.maximum(plane[..., None] + noise, 0), np.float32)


def quality_row(
    case: str, thickness: int, modality: str, fault: str, quality: Quality
) -> dict[str, object]:
    """Return a row of `quality.csv`."""
    row: dict[str, object] = {"case": case, "mm": thickness, "sequence": modality, "fault": fault}
    return row | asdict(quality)


def study_table() -> str:
    """Return the table of studies for docs/from-scanner.md: means by thickness and sequences."""
    rows = _read("studies")
    head = (
        "slices", "sequences", "registration error", "Dice of the brain mask",
        "direct: WT, TC, ET", "through the scanner: WT, TC, ET", "mean Dice lost", "CPU time",
    )  # fmt: skip
    lines = []
    for thickness in THICKNESS:
        for name in SEQUENCES:
            group = [r for r in rows if r["mm"] == str(thickness) and r["sequences"] == name]
            if not group:
                continue
            mean = {k: float(np.mean([float(r[k]) for r in group])) for k in FIELDS[3:]}
            ways = {
                way: [mean[f"{way}_{r}"] for r in ("wt", "tc", "et")]
                for way in ("direct", "scanner")
            }
            lost = float(np.mean(ways["direct"]) - np.mean(ways["scanner"]))
            lines.append((
                f"{thickness} mm", name,
                f"{mean['error_mm']:.2f} mm, {mean['error_degrees']:.2f}°",
                f"{mean['brain_dice']:.3f}",
                *(", ".join(f"{v:.2f}" for v in ways[way]) for way in ("direct", "scanner")),
                f"{lost:.3f}", f"{mean['cpu_seconds']:.0f} s",
            ))  # fmt: skip
    patients = len({row["case"] for row in rows})
    number = "one patient" if patients == 1 else f"{patients} patients"
    return f"{table(head, lines)}\n\nMeans over {number}."


def quality_table() -> str:
    """Return the table of what quality control flagged, for docs/from-scanner.md."""
    rows = _read("quality")
    lines = []
    for fault in dict.fromkeys(row["fault"] for row in rows):
        group = [row for row in rows if row["fault"] == fault]
        measured = [Quality(*(float(row[name]) for name in QUALITY_FIELDS[4:])) for row in group]
        flagged = sum(bool(quality.problems) for quality in measured)
        lines.append((fault or "none: registered as usual", len(group), flagged))
    return table(("fault", "registrations", "refused"), lines)


def write_table(name: str, fields: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write one of the tables atomically."""
    with atomic_path(FOLDER / f"{name}.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            cells = {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow(cells)


def _read(name: str) -> list[dict[str, str]]:
    path = FOLDER / f"{name}.csv"
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
