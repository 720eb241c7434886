"""What do cases look like, and which faults made on purpose does `glioslice.sanity_checks` see?

    python benchmarks/unusual_inputs.py --data ../shared/data/brats    # look, then write docs/confidence.md
    python benchmarks/unusual_inputs.py                                # write from the committed tables

In `benchmarks/inputs/`, `seen.csv` holds a row a patient or phantom, `faults.csv` how many of them
are warned of when each fault is made.
"""

import argparse
import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.folds import ROOT
from benchmarks.pages import fill, table
from glioslice import cli
from glioslice.cases import MODALITIES, find_cases, phantom_case, read_case
from glioslice.cli import track
from glioslice.files import whole
from glioslice.phantom.head import SEEDS
from glioslice.preprocessing import brain_of
from glioslice.sanity_checks import (
    PAIRS,
    TITLES,
    Contrasts,
    Shape,
    contrasts_of,
    odd_contrasts,
    odd_shape,
    sampled,
    shape_of,
)

FOLDER = ROOT / "benchmarks" / "inputs"
PAGE = ROOT / "docs" / "confidence.md"
GROUPS = ("patients", "phantoms")
GAP = 4
"""Millimetres between a brain and the scalp that is put around it."""

NOISE = 0.05
"""Deviations of the noise in a copy."""

Sample = NDArray[np.float64]
Brain = NDArray[np.bool_]


def main() -> None:
    """Read the command line, look and write."""
    parser = cli.parser(
        "Measure what cases look like, and which faults are seen.",
        "python benchmarks/unusual_inputs.py --data ../shared/data/brats",
    )
    parser.add_argument("--data", type=Path, help="a folder of cases; without, nothing is measured")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    if arguments.data:
        measure(arguments.data)
    fill(PAGE, {"inputs": page()})
    print(f"written: {PAGE.name}")


def measure(data: Path) -> None:
    """Write both tables."""
    found = find_cases(data)
    seen: list[tuple[object, ...]] = []
    counts: dict[str, dict[str, int]] = {}
    jobs = [(GROUPS[0], files.name) for files in found]
    jobs += [(GROUPS[1], f"phantom-{seed}") for seed in SEEDS]
    for place, (group, name) in enumerate(track(jobs, "cases")):
        seed = place - len(found)
        case = read_case(found[place]) if seed < 0 else phantom_case(SEEDS[seed])
        brain = brain_of(case.images)
        sample = sampled(case.images, brain)
        seen.append((name, *cells(shape_of(brain), contrasts_of(sample))))
        for fault, warned in faults(sample, close_up(brain)):
            count = counts.setdefault(fault, dict.fromkeys(GROUPS, 0))
            count[group] += warned
    write_table("seen", ("case", *columns()), seen)
    write_table("faults", ("fault", *GROUPS), [(f, *by.values()) for f, by in counts.items()])


def faults(sample: Sample, brain: Brain) -> Iterator[tuple[str, bool]]:
    """Yield each fault, made in the voxels (4, N) or in the brain (X, Y, Z), and if it is seen."""
    yield "nothing", bool(odd_contrasts(contrasts_of(sample)) + odd_shape(shape_of(brain)))
    for fault, spoilt in spoilt_contrasts(sample):
        yield fault, bool(odd_contrasts(contrasts_of(spoilt)))
    for fault, other in spoilt_shapes(brain):
        yield fault, bool(odd_shape(shape_of(other)))


def spoilt_contrasts(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Yield the voxels with a modality missing, doubled, or swapped with another."""
    titles = [TITLES[modality] for modality in MODALITIES]
    for place, title in enumerate(titles):
        spoilt = sample.copy()
        spoilt[place] = 0
        yield f"{title} is 0", spoilt
    for one, other in combinations(range(4), 2):
        spoilt = sample.copy()
        noise = np.random.default_rng(0).normal(0, NOISE, sample.shape[1])
        spoilt[other] = sample[one] + noise * sample[one].std()
        yield f"{titles[one]}, with some noise, in place of {titles[other]}", spoilt
    for one, other in combinations(range(4), 2):
        order = list(range(4))
        order[one], order[other] = other, one
        yield f"{titles[one]} and {titles[other]} swapped", sample[order]


def spoilt_shapes(brain: Brain) -> Iterator[tuple[str, Brain]]:
    """Yield the brain with a scalp around it, cut, turned, and what is none."""
    from scipy.ndimage import binary_dilation

    gap = binary_dilation(brain, iterations=GAP)
    yield f"a scalp {GAP} mm outside the brain", brain | (binary_dilation(gap, iterations=2) & ~gap)
    yield "the lower half alone", brain[..., : brain.shape[2] // 2]
    yield "lying on its side", np.swapaxes(brain, 1, 2)
    yield "a box around the brain that is not 0", np.ones_like(brain)


def close_up(brain: Brain) -> Brain:
    """Return what lies around the brain: faults are then made faster."""
    box = []
    for axis in range(3):
        filled = np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return np.pad(brain[tuple(box)], GAP + 2)


def columns() -> tuple[str, ...]:
    """Return the names of what is seen."""
    pairs = [f"alike_{MODALITIES[a]}_{MODALITIES[b]}" for a, b in PAIRS]
    by_modality = [f"{what}_{m}" for what in ("same", "bright") for m in MODALITIES]
    return ("ml", "x", "y", "z", "fill", "enclosed", *by_modality, *pairs)


def cells(shape: Shape, seen: Contrasts) -> tuple[str, ...]:
    """Return what was seen under `columns`."""
    shares = (shape.fill, shape.enclosed, *seen.same, *seen.bright, *seen.alike)
    return (f"{shape.millilitres:.0f}", *map(str, shape.sides), *(f"{n:.4f}" for n in shares))


def write_table(name: str, head: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write one of the tables, whole or not at all."""
    path = FOLDER / f"{name}.csv"
    with whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(lines)


def read_table(name: str) -> list[dict[str, str]]:
    """Return the committed rows of `seen` or `faults`."""
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def page() -> str:
    """Return the table of faults for the page."""
    rows = read_table("seen")
    phantoms = sum(row["case"].startswith("phantom-") for row in rows)
    sizes = len(rows) - phantoms, phantoms
    head = ("made on purpose", *(f"of {n} {group}" for n, group in zip(sizes, GROUPS, strict=True)))
    return table(head, [list(row.values()) for row in read_table("faults")])


if __name__ == "__main__":
    main()
