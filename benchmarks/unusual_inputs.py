"""Measure the properties of cases, and which injected faults `glioslice.sanity_checks` detects.

    python benchmarks/unusual_inputs.py --data DATA    # measure, then write docs/confidence.md
    python benchmarks/unusual_inputs.py                # write from the committed tables

In `benchmarks/inputs/`, `seen.csv` holds a row for each patient or phantom, and `faults.csv` the
number of them that raise a warning with each fault.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import ROOT
from benchmarks.pages import fill, read_csv, table, write_csv
from glioslice import cli
from glioslice.cases import MODALITIES, find_cases, phantom_case, read_case
from glioslice.cli import track
from glioslice.dataset_layouts import MODALITY_TITLES
from glioslice.phantom.head import SEEDS
from glioslice.preprocessing import brain_mask, voxels_in
from glioslice.sanity_checks import (
    PAIRS,
    BrainShape,
    Contrasts,
    contrast_warnings,
    measure_contrasts,
    measure_shape,
    sample_step,
    shape_warnings,
)

SEEN = ROOT / "benchmarks" / "inputs" / "seen.csv"
FAULTS = SEEN.with_name("faults.csv")
PAGE = ROOT / "docs" / "confidence.md"
GROUPS = ("patients", "phantoms")
GAP = 4
"""Millimetres between a brain and the scalp that is put around it."""

NOISE = 0.05
"""Deviations of the noise in a copy."""

Sample = NDArray[np.float64]
BrainMask = NDArray[np.bool_]


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, measure and write the page."""
    parser = cli.parser(
        "Measure the properties of cases, and which faults are detected.",
        "python benchmarks/unusual_inputs.py --data ../shared/data/brats",
    )
    parser.add_argument(
        "--data", type=Path, help="a folder of cases; without it nothing is measured"
    )
    cli.run(measure_inputs, parser.parse_args(argv))


def measure_inputs(arguments: argparse.Namespace) -> None:
    """Measure if there are cases, and write the page."""
    if arguments.data:
        measure_cases(arguments.data)
    fill(PAGE, {"inputs": make_table()})
    print(f"written: {PAGE.name}")


def measure_cases(data: Path) -> None:
    """Write what each case measures, and how often each fault is detected."""
    found = find_cases(data)
    seen: list[tuple[object, ...]] = []
    counts: dict[str, dict[str, int]] = {}
    jobs = [(GROUPS[0], files.name) for files in found]
    jobs += [(GROUPS[1], f"phantom-{seed}") for seed in SEEDS]
    for place, (group, name) in enumerate(track(jobs, "cases")):
        seed = place - len(found)
        case = read_case(found[place]) if seed < 0 else phantom_case(SEEDS[seed])
        brain = brain_mask(case.images)
        step = sample_step(brain)
        voxels = [voxels_in(case.images, index, brain)[::step] for index in range(len(MODALITIES))]
        sample = np.asarray(voxels, np.float64)
        seen.append((name, *row_cells(measure_shape(brain), measure_contrasts(sample))))
        for fault, warned in faults(sample, crop_to_brain(brain)):
            count = counts.setdefault(fault, dict.fromkeys(GROUPS, 0))
            count[group] += warned
    write_csv(SEEN, ("case", *columns()), seen)
    write_csv(FAULTS, ("fault", *GROUPS), [(f, *by.values()) for f, by in counts.items()])


def faults(sample: Sample, brain: BrainMask) -> Iterator[tuple[str, bool]]:
    """Yield each fault of the voxels (4, N) or the brain (X, Y, Z), and whether it is detected."""
    yield (
        "nothing",
        bool(contrast_warnings(measure_contrasts(sample)) + shape_warnings(measure_shape(brain))),
    )
    for fault, broken in broken_contrasts(sample):
        yield fault, bool(contrast_warnings(measure_contrasts(broken)))
    for fault, other in broken_shapes(brain):
        yield fault, bool(shape_warnings(measure_shape(other)))


def broken_contrasts(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Yield the voxels with a modality missing, doubled, or swapped with another."""
    titles = [MODALITY_TITLES[modality] for modality in MODALITIES]
    for place, title in enumerate(titles):
        broken = sample.copy()
        broken[place] = 0
        yield f"{title} is 0", broken
    for one, other in combinations(range(4), 2):
        broken = sample.copy()
        noise = np.random.default_rng(0).normal(0, NOISE, sample.shape[1])
        broken[other] = sample[one] + noise * sample[one].std()
        yield f"{titles[one]}, with some noise, in place of {titles[other]}", broken
    for one, other in combinations(range(4), 2):
        order = list(range(4))
        order[one], order[other] = other, one
        yield f"{titles[one]} and {titles[other]} swapped", sample[order]


def broken_shapes(brain: BrainMask) -> Iterator[tuple[str, BrainMask]]:
    """Yield the brain with a scalp around it, cut, rotated, and a box instead of a brain."""
    from scipy.ndimage import binary_dilation

    gap = binary_dilation(brain, iterations=GAP)
    yield f"a scalp {GAP} mm outside the brain", brain | (binary_dilation(gap, iterations=2) & ~gap)
    yield "the lower half alone", brain[..., : brain.shape[2] // 2]
    yield "lying on its side", np.swapaxes(brain, 1, 2)
    yield "a box around the brain that is not 0", np.ones_like(brain)


def crop_to_brain(brain: BrainMask) -> BrainMask:
    """Return the brain's box with a margin, in which faults are made faster."""
    box = []
    for axis in range(3):
        filled = np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return np.pad(brain[tuple(box)], GAP + 2)


def columns() -> tuple[str, ...]:
    """Return the columns of `seen.csv`."""
    pairs = [f"alike_{MODALITIES[a]}_{MODALITIES[b]}" for a, b in PAIRS]
    by_modality = [f"{what}_{m}" for what in ("same", "bright") for m in MODALITIES]
    return ("ml", "x", "y", "z", "fill", "enclosed", *by_modality, *pairs)


def row_cells(shape: BrainShape, seen: Contrasts) -> tuple[str, ...]:
    """Return the cells of a row under `columns`."""
    shares = (shape.fill, shape.enclosed, *seen.constant, *seen.bright, *seen.correlations)
    return (f"{shape.millilitres:.0f}", *map(str, shape.sides), *(f"{n:.4f}" for n in shares))


def make_table() -> str:
    """Return the table of faults for docs/confidence.md."""
    rows = read_csv(SEEN)
    phantoms = sum(row["case"].startswith("phantom-") for row in rows)
    sizes = len(rows) - phantoms, phantoms
    head = ("fault", *(f"of {n} {group}" for n, group in zip(sizes, GROUPS, strict=True)))
    return table(head, [list(row.values()) for row in read_csv(FAULTS)])


if __name__ == "__main__":
    main()
