"""Measure the way from a scanner's series to a mask in its space, for docs/from-scanner.md.

    python benchmarks/scanner_studies.py --data ../shared/data/brats PATIENT ...   # and measure
    python benchmarks/scanner_studies.py --time         # time and memory of `glioslice prepare`
    python benchmarks/scanner_studies.py                # write the page from the committed tables

A simulated scanner puts a skull around each patient's brain, turns and shifts the head before each
sequence, and cuts it into slices of 1, 3 and 5 mm. `glioslice prepare` makes a case of them, the
shipped network segments it, and the mask comes back to T1ce. The direct way segments the patient as
the data set has it and brings the mask to T1ce by the true transform; both are compared with the
experts' mask in that space. A third way leaves the head in the pose of T1ce and centres it, to see
what the alignment to the reference is worth. `benchmarks/studies/` holds a row for each study, and
one for each registration that quality control judged, right or broken on purpose. A study that has
its rows already is not measured again: delete its rows, or the files, to do that.

`--time` runs `glioslice prepare` on the DICOM series of a phantom, once for each thickness and way
of brain extraction that is installed. Nothing else should run on the machine: some five minutes.
"""

import argparse
import resource
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import ROOT
from benchmarks.acquisition import Acquisition, acquire, limb, random_pose, rigid
from benchmarks.pages import fill, processor, read_csv, table, write_csv
from benchmarks.scale_runs import timed
from device.engine import Engine
from device.segment import segment
from glioslice import cli
from glioslice.cases import MODALITIES, Case, read_case
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.metrics import dice, region_dice
from glioslice.model_card import find_model
from glioslice.nifti import Space, read_nifti
from glioslice.phantom.skull import add_skull
from glioslice.preprocessing import brain_mask
from scanner.brain_extraction import DEEPBET, HD_BET, NEEDS
from scanner.case_files import read_spaces
from scanner.pipeline import Prepared, SourceSpace, prepare_case, resample_sources
from scanner.quality_control import Quality, judge
from scanner.registration import Registration, make_target, register
from scanner.restore import restore_labels
from scanner.volumes import (
    TO_LPS,
    Grid,
    Volume,
    Voxels,
    displacement,
    region_on_grid,
    rotation_angle,
)

FOLDER = ROOT / "benchmarks" / "studies"
PAGE = ROOT / "docs" / "from-scanner.md"

THICKNESS = 1, 5, 3
"""mm, in the order of measuring: those with goals come first."""

FAULTS_AT = 5
"""mm of the slices of which registrations are broken on purpose."""

SEQUENCES = {"four": MODALITIES, "T1ce and FLAIR": ("flair", "t1ce")}
PROBES = np.array([[60, 0, 0], [-60, 0, 0], [0, 70, 0], [0, -70, 0], [0, 0, 50], [0, 0, -50]])
"""Points of the brain's surface relative to its centre, in mm, where errors are measured."""

FIELDS = (
    "case", "mm", "sequences", "error_mm", "error_degrees", "brain_dice",
    "direct_wt", "direct_tc", "direct_et", "scanner_wt", "scanner_tc", "scanner_et",
    "centred_wt", "centred_tc", "centred_et", "agreement", "cpu_seconds", "peak_mb",
)  # fmt: skip
QUALITY_FIELDS = (
    "case", "mm", "sequence", "fault", "coverage", "edges", "peak", "gain", "angle", "shift"
)  # fmt: skip
TIME_FIELDS = (
    "machine", "mm", "extraction", "wall_seconds", "cpu_seconds", "peak_mb", "brain_dice"
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, measure and write the page."""
    parser = cli.parser(
        "Measure the way from a scanner's series to a mask in its space.",
        "python benchmarks/scanner_studies.py --data ../shared/data/brats BraTS2021_00003",
    )
    parser.add_argument("patients", nargs="*", metavar="PATIENT", help="folders in --data")
    parser.add_argument("--data", type=Path, help="a folder of cases")
    parser.add_argument(
        "--mm", type=int, nargs="+", choices=THICKNESS, default=THICKNESS, metavar="MM",
        help="thickness of the slices, all of 1, 3 and 5 without it",
    )  # fmt: skip
    parser.add_argument(
        "--time", action="store_true", help="measure time and memory on the series of a phantom"
    )
    cli.run(run_command, parser.parse_args(argv))


def run_command(arguments: argparse.Namespace) -> None:
    """Measure the patients, if any are named, and write the page."""
    if arguments.time:
        write_table("times", TIME_FIELDS, merge_times(measure_times(arguments.mm)))
    if bool(arguments.patients) != bool(arguments.data):
        raise GliosliceError("name --data and the patients in it, or neither")
    if arguments.patients:
        measure([arguments.data / name for name in arguments.patients], arguments.mm)
    fill(
        PAGE,
        {
            "scanner": study_table(),
            "pose": pose_table(),
            "quality": quality_table(),
            "times": time_table(),
        },
    )
    print(f"written: {PAGE.name}")


def measure(paths: Sequence[Path], thickness_mm: Sequence[int] = THICKNESS) -> None:
    """Add the rows of each study that has none to both tables, as soon as it ends."""
    engine = Engine(find_model(None), threads=1)
    for index, path in enumerate(cli.track(paths, "patients")):
        missing = [mm for mm in thickness_mm if not has_study(path.name, mm)]
        if not missing:
            continue
        case = read_case(path)
        head = head_of(case)
        direct = {name: segment_with(case.images, wanted, engine)
                  for name, wanted in SEQUENCES.items()}  # fmt: skip
        for thickness in missing:
            series = acquire_study(head, case.name, thickness)
            rows, prepared = measure_study(case, series, thickness, engine, direct)
            judged = [
                quality_row(case.name, thickness, modality, "", quality)
                for modality, quality in prepared.quality.items()
            ]
            if thickness == FAULTS_AT:
                other = read_case(paths[index - 1]) if len(paths) > 1 else None
                judged += judge_faults(case, series, prepared, other)
            # The quality first: a study counts as measured once it has its rows in `studies`.
            write_table(
                "quality", QUALITY_FIELDS, [*without("quality", case.name, thickness), *judged]
            )
            write_table("studies", FIELDS, [*without("studies", case.name, thickness), *rows])


def has_study(case: str, thickness: int) -> bool:
    """Return whether a study has its rows."""
    wanted = (case, str(thickness))
    return any((row["case"], row["mm"]) == wanted for row in read_table("studies"))


def without(name: str, case: str, thickness: int) -> list[dict[str, str]]:
    """Return the rows of a table but those of one study."""
    return [row for row in read_table(name) if (row["case"], row["mm"]) != (case, str(thickness))]


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


def head_of(case: Case) -> Volume4:
    """Return a patient's head with a simulated skull."""
    return Volume4(add_skull(case.images, seed_of(case.name)), case.space)


def seed_of(name: str) -> int:
    """Return the seed of a patient, which is the same whoever else is measured."""
    return zlib.crc32(name.encode())


def acquire_study(
    head: Volume4, name: str, thickness: int, modalities: Sequence[str] = MODALITIES
) -> dict[str, Acquisition]:
    """Return the series of a study, with the head turned and shifted before each."""
    series = {}
    for modality in modalities:
        rng = np.random.default_rng([seed_of(name), thickness, MODALITIES.index(modality)])
        series[modality] = acquire(head.sequence(modality), random_pose(rng), thickness)
    return series


def segment_with(
    images: Mapping[str, Voxels] | Voxels, wanted: Sequence[str], engine: Engine
) -> NDArray[np.uint8]:
    """Return the labels that the network gives of the wanted sequences; the others are zeros."""
    chosen = [
        images[m] if isinstance(images, Mapping) else images[MODALITIES.index(m)] for m in wanted
    ]
    volume = np.zeros((len(MODALITIES), *chosen[0].shape), np.float32)
    for modality, image in zip(wanted, chosen, strict=True):
        volume[MODALITIES.index(modality)] = image
    return segment(volume, engine).labels


def measure_study(
    case: Case,
    series: Mapping[str, Acquisition],
    thickness: int,
    engine: Engine,
    direct: Mapping[str, NDArray[np.uint8]],
) -> tuple[list[dict[str, object]], Prepared]:
    """Return a row for each choice of sequences, and the case of all four.

    `direct` are the labels of the patient as the data set has it. Each sequence is registered for
    itself, so the case of two is that of four without the others.
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
    from_head = np.linalg.inv(t1ce.pose)
    truth = restore_labels(case.labels, head, on_t1ce, from_head)
    rows: list[dict[str, object]] = []
    for name, wanted in SEQUENCES.items():
        plain = restore_labels(direct[name], head, on_t1ce, from_head)
        found = restore_labels(
            segment_with(prepared.images, wanted, engine),
            prepared.grid, on_t1ce, prepared.spaces["t1ce"].matrix,
        )  # fmt: skip
        errors = [registration_error(series, prepared, m) for m in wanted if m != "t1ce"]
        row: dict[str, object] = {"case": case.name, "mm": thickness, "sequences": name}
        row |= {
            "error_mm": np.mean([mm for mm, _ in errors]),
            "error_degrees": np.mean([degrees for _, degrees in errors]),
            "brain_dice": dice(brain, prepared.brain),
            "agreement": dice(plain > 0, found > 0),
            "cpu_seconds": seconds,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        ways = {"direct": plain, "scanner": found}
        if wanted == MODALITIES:
            ways["centred"] = segment_centred(series, prepared, engine)
        for way, labels in ways.items():
            scores = region_dice(labels, truth)
            row |= {f"{way}_{region.lower()}": scores[region] for region in REGIONS}
        rows.append(row)
    return rows, prepared


def segment_centred(
    series: Mapping[str, Acquisition], prepared: Prepared, engine: Engine
) -> NDArray[np.uint8]:
    """Return the labels on T1ce of a case that is centred on the brain but not turned."""
    grid = prepared.grid
    inside = np.argwhere(prepared.brain).mean(axis=0)
    centre = (TO_LPS @ grid.affine @ [*inside, 1])[:3]
    to_t1ce = np.eye(4)
    to_t1ce[:3, 3] = (prepared.spaces["t1ce"].matrix @ [*centre, 1])[:3] - grid.centre
    to_case = np.linalg.inv(prepared.spaces["t1ce"].matrix) @ to_t1ce
    mask = region_on_grid(prepared.brain, grid, grid, to_case)
    spaces = {m: SourceSpace(s.grid, s.matrix @ to_case) for m, s in prepared.spaces.items()}
    images, _, _ = resample_sources({m: s.volume for m, s in series.items()}, spaces, mask, grid)
    labels = segment_with(images, MODALITIES, engine)
    return restore_labels(labels, grid, series["t1ce"].volume.grid, to_t1ce)


def registration_error(
    series: Mapping[str, Acquisition], prepared: Prepared, modality: str
) -> tuple[float, float]:
    """Return the error of a sequence against T1ce in mm, at the brain's surface, and degrees."""
    ways = [series[m].pose @ prepared.spaces[m].matrix for m in (modality, "t1ce")]
    error = np.linalg.inv(ways[1]) @ ways[0]
    return float(np.mean([displacement(error, p) for p in PROBES])), rotation_angle(error)


def judge_faults(
    case: Case, series: Mapping[str, Acquisition], prepared: Prepared, other: Case | None
) -> list[dict[str, object]]:
    """Return a row for each fault; `other` is another patient."""
    t1ce = series["t1ce"].volume
    to_case = np.linalg.inv(prepared.spaces["t1ce"].matrix)
    brain = region_on_grid(prepared.brain, prepared.grid, t1ce.grid, to_case)
    foreign = None
    if other is not None:
        foreign = acquire_study(head_of(other), other.name, FAULTS_AT, ["flair"])["flair"].volume
    rows = []
    for fault, moving, registration in broken(t1ce, series["flair"].volume, brain, foreign):
        quality = judge(t1ce, moving, brain, t1ce.grid, registration)
        rows.append(quality_row(case.name, FAULTS_AT, "flair", fault, quality))
    return rows


def broken(
    t1ce: Volume, flair: Volume, brain: NDArray[np.bool_], foreign: Volume | None
) -> Iterator[tuple[str, Volume, Registration]]:
    """Yield each fault: a FLAIR that does not belong on this T1ce, or does not lie on it."""
    target = make_target(t1ce, brain)
    mirrored = Volume(flair.voxels[::-1].copy(), flair.grid)
    yield "mirrored left to right", mirrored, register(target, mirrored)
    half = flair.voxels.copy()
    half[..., : half.shape[2] // 2] = 0
    lower = Volume(half, flair.grid)
    yield "half a head", lower, register(target, lower)
    right = register(target, flair)
    for degrees, mm in ((3.0, 3.0), (6.0, 8.0)):
        off = rigid(np.array([1.0, 0.5, 0.2]), degrees, np.array([0.3, 1.0, 0.5]), mm)
        yield (
            f"search ended {degrees:g} degrees and {mm:g} mm off",
            flair,
            replace(right, matrix=right.matrix @ off),
        )
    cylinder = Volume(limb(flair), flair.grid)
    yield "a limb", cylinder, register(target, cylinder)
    if foreign is not None:
        yield "another patient", foreign, register(target, foreign)


def quality_row(
    case: str, thickness: int, modality: str, fault: str, quality: Quality
) -> dict[str, object]:
    """Return a row of `quality.csv`."""
    row: dict[str, object] = {"case": case, "mm": thickness, "sequence": modality, "fault": fault}
    return row | asdict(quality)


def study_table() -> str:
    """Return the table of studies for docs/from-scanner.md: means by thickness and sequences."""
    rows = read_table("studies")
    head = (
        "slices", "sequences", "patients", "registration error", "Dice of the brain mask",
        "direct: WT, TC, ET", "through the scanner: WT, TC, ET", "mean Dice lost", "CPU time",
    )  # fmt: skip
    lines = []
    for thickness in sorted(THICKNESS):
        for name in SEQUENCES:
            group = [r for r in rows if r["mm"] == str(thickness) and r["sequences"] == name]
            if not group:
                continue
            ways = {way: _mean_dice(group, way) for way in ("direct", "scanner")}
            lost = float(np.mean(ways["direct"]) - np.mean(ways["scanner"]))
            lines.append((
                f"{thickness} mm", name, len(group),
                f"{_mean(group, 'error_mm'):.2f} mm, {_mean(group, 'error_degrees'):.2f}°",
                f"{_mean(group, 'brain_dice'):.3f}",
                *(", ".join(f"{v:.2f}" for v in ways[way]) for way in ("direct", "scanner")),
                _signed(lost), f"{_mean(group, 'cpu_seconds'):.0f} s",
            ))  # fmt: skip
    memory = max((float(row["peak_mb"]) for row in rows), default=0.0) / 1024
    return (
        f"{table(head, lines)}\n\nThe process took at most {memory:.1f} GB, the patient's own "
        "volumes and the network included."
    )


def pose_table() -> str:
    """Return what the alignment to the reference is worth, for docs/from-scanner.md."""
    rows = [row for row in read_table("studies") if row["centred_wt"]]
    head = ("slices", "patients", "aligned: WT, TC, ET", "centred: WT, TC, ET", "mean Dice gained")
    lines = []
    for thickness in sorted(THICKNESS):
        group = [row for row in rows if row["mm"] == str(thickness)]
        if group:
            aligned, centred = (_mean_dice(group, way) for way in ("scanner", "centred"))
            lines.append((
                f"{thickness} mm", len(group),
                *(", ".join(f"{v:.2f}" for v in way) for way in (aligned, centred)),
                _signed(float(np.mean(aligned) - np.mean(centred))),
            ))  # fmt: skip
    return table(head, lines)


def measure_times(thickness_mm: Sequence[int]) -> list[dict[str, object]]:
    """Return a row for each study of a phantom and each way of brain extraction."""
    from tests.scanner import simulated_scanner as simulated

    installed = [way for way in (DEEPBET, HD_BET) if all(map(find_spec, NEEDS[way]))]
    head = simulated.phantom_head(0)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for thickness in cli.track(sorted(thickness_mm), "thicknesses"):
            rng = np.random.default_rng(thickness)
            protocols = [
                replace(protocol, thickness=float(thickness), pose=random_pose(rng))
                for protocol in (simulated.T1, simulated.T1CE, simulated.T2, simulated.FLAIR)
            ]
            study = Path(temporary, f"study-{thickness}")
            series = simulated.write_study(study, head, protocols)
            for way in installed:
                case = Path(temporary, f"{way}-{thickness}")
                wall, cpu, peak = timed([
                    sys.executable, "-m", "scanner.prepare", str(study), "--out", str(case),
                    "--brain-extraction", way,
                ])  # fmt: skip
                grid, spaces = read_spaces(case)
                to_head = series["t1ce"].pose @ spaces["t1ce"].matrix
                image, _ = read_nifti(case / f"{case.name}_t1ce.nii.gz")
                brain = region_on_grid(head.brain, head.grid, grid, to_head)
                rows.append({
                    "machine": processor(), "mm": thickness, "extraction": way,
                    "wall_seconds": wall, "cpu_seconds": cpu, "peak_mb": peak,
                    "brain_dice": dice(brain, image[0] > 0),
                })  # fmt: skip
    return rows


def merge_times(measured: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Return the rows of `times` with those of the thicknesses that were measured now replaced."""
    done = {str(row["mm"]) for row in measured}
    others = [row for row in read_table("times") if row["mm"] not in done]
    return sorted([*others, *measured], key=lambda row: int(str(row["mm"])))


def time_table() -> str:
    """Return time and memory of a study for docs/from-scanner.md."""
    rows = read_table("times")
    if not rows:
        return "Not measured yet: `python benchmarks/scanner_studies.py --time` writes the table."
    head = (
        "slices", "brain extraction", "wall time", "CPU time", "peak memory",
        "Dice of the brain mask",
    )  # fmt: skip
    lines = [
        (
            f"{row['mm']} mm", row["extraction"], f"{float(row['wall_seconds']):.0f} s",
            f"{float(row['cpu_seconds']):.0f} s", f"{float(row['peak_mb']) / 1000:.1f} GB",
            f"{float(row['brain_dice']):.3f}",
        )
        for row in rows
    ]  # fmt: skip
    return f"{table(head, lines)}\n\nMeasured on {rows[0]['machine']}."


def _signed(value: float) -> str:
    """Return a difference of Dice to three digits, 0.000 without a sign."""
    return f"{round(value, 3) + 0.0:.3f}"


def _mean(rows: Sequence[Mapping[str, str]], field: str) -> float:
    return float(np.mean([float(row[field]) for row in rows]))


def _mean_dice(rows: Sequence[Mapping[str, str]], way: str) -> list[float]:
    """Return the mean Dice of WT, TC and ET."""
    return [_mean(rows, f"{way}_{region.lower()}") for region in REGIONS]


def quality_table() -> str:
    """Return the table of what quality control flagged, for docs/from-scanner.md."""
    rows = read_table("quality")
    lines = []
    for fault in dict.fromkeys(row["fault"] for row in rows):
        group = [row for row in rows if row["fault"] == fault]
        measured = [Quality(*(float(row[name]) for name in QUALITY_FIELDS[4:])) for row in group]
        flagged = sum(bool(quality.problems) for quality in measured)
        lines.append((fault or "none: registered as usual", len(group), flagged))
    return table(("fault", "registrations", "refused"), lines)


def write_table(name: str, fields: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write one of the tables atomically."""
    cells = [
        [f"{v:.4f}" if isinstance(v, float) else v for v in (row.get(f, "") for f in fields)]
        for row in rows
    ]
    write_csv(FOLDER / f"{name}.csv", fields, cells)


def read_table(name: str) -> list[dict[str, str]]:
    """Return the rows of one of the tables."""
    return read_csv(FOLDER / f"{name}.csv")


if __name__ == "__main__":
    main()
