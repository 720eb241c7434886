"""Train candidates for the network's form briefly, and rank them by Dice, bytes and MACs.

    python benchmarks/search.py --data ../shared/data [five ...]  # benchmarks/folds/search.csv
    python benchmarks/search.py                                   # docs/accuracy.md from that file

A candidate is trained for a quarter of the recipe's epochs, its rate falling to zero within them,
on folds 1 and 2. Dice is that of the float network on the fold's patients: enough to rank by.
"""

import argparse
import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from benchmarks.folds import BUILD, train
from benchmarks.pages import fill, table
from benchmarks.rivals import CANDIDATES
from benchmarks.runs import FOLDS, KEPT, ROOT
from convert.export import export
from convert.products import packed
from glioslice import command
from glioslice.card import CARD
from glioslice.cases import phantom_case
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_bytes
from glioslice.labels import REGIONS
from glioslice.slices import WINDOW, brain_of, crop_of, cut, z_scores
from training.dataset import with_neighbours
from training.network import build, folded

EPOCHS, TRIED_ON = 9, FOLDS[:2]
FILE = KEPT / "search.csv"
PAGE = ROOT / "docs" / "accuracy.md"


@dataclass(frozen=True)
class Tried:
    """A candidate on a fold: what it weighs, and the Dice of WT, TC, ET on the fold's patients."""

    candidate: str
    fold: int
    parameters: int
    macs: int
    bytes: int
    WT: float
    TC: float
    ET: float

    @property
    def mean(self) -> float:
        """The mean Dice of WT, TC, ET."""
        return fmean((self.WT, self.TC, self.ET))


def main() -> None:
    """Read the command line, train and write."""
    parser = command.parser(
        "Train candidates for the network's form briefly, and rank them.",
        "python benchmarks/search.py --data ../shared/data five",
    )
    parser.add_argument("candidate", nargs="*", help=f"default: {', '.join(CANDIDATES)}")
    parser.add_argument("--data", type=Path, help="holds brats/, lesions/cubes.npz, patients.csv")
    command.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    if unknown := sorted(set(arguments.candidate) - set(CANDIDATES)):
        raise GliosliceError(f"no candidate '{unknown[0]}'; there are {', '.join(CANDIDATES)}")
    if arguments.data:
        for fold in TRIED_ON:
            for name in arguments.candidate or CANDIDATES:
                keep(tried(name, fold, arguments.data))
    fill(PAGE, {"search": search_table(read())})


def tried(name: str, fold: int, data: Path) -> Tried:
    """Train a candidate where that has not been done yet, and return what came of it."""
    words = ("--size", f"benchmarks.rivals:{name.upper()}", "--epochs", str(EPOCHS))
    train(f"{name}-{fold}", fold, words, data)
    folder = BUILD / f"{name}-{fold}"
    # Not by `load_model`, which refuses networks that no board could serve: those with neighbours.
    network = build(CANDIDATES[name]).eval()
    network.load_state_dict(load_file(folder / f"{name}.safetensors"))
    files = packed(name, export(folded(network), WINDOW, heads(network.config.neighbours)), ())
    size = next(len(file.content) for file in files if file.precision == "int8")
    with (folder / "log.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    shape = read_json(folder / CARD)["network"]
    dice = {region: round(float(last[region]), 4) for region in REGIONS}
    return Tried(name, fold, shape["parameters"], shape["macs"], size, **dice)


def heads(neighbours: int) -> NDArray[np.float32]:
    """Return some slices of a phantom as the network sees them, to calibrate on."""
    images = phantom_case(0).images
    brain = brain_of(images)
    slices: NDArray[np.float32]
    slices = with_neighbours(cut(z_scores(images, brain), crop_of(brain)), neighbours)[::8]
    return slices


def read() -> list[Tried]:
    """Return what is kept."""
    with FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {field.name: field.type for field in fields(Tried)}
    assert all(isinstance(kind, type) for kind in kinds.values())
    return [Tried(**{name: kinds[name](cell) for name, cell in row.items()}) for row in rows]  # type: ignore[operator]


def keep(one: Tried) -> None:
    """Put a row into the file, in place of an older one of its candidate and fold."""
    held = {(t.candidate, t.fold): t for t in (read() if FILE.is_file() else [])}
    held[one.candidate, one.fold] = one
    text = io.StringIO()
    names = [field.name for field in fields(Tried)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    order = list(CANDIDATES)
    for row in sorted(held.values(), key=lambda t: (order.index(t.candidate), t.fold)):
        writer.writerow(asdict(row))
    write_bytes(FILE, text.getvalue().encode())


def search_table(rows: list[Tried]) -> str:
    """Return a row a candidate, the best first; one that lacks a fold is not ranked."""
    lines = []
    for name in dict.fromkeys(row.candidate for row in rows):
        of = {row.fold: row for row in rows if row.candidate == name}
        one, config = next(iter(of.values())), CANDIDATES[name]
        rank = fmean(row.mean for row in of.values()) if len(of) == len(TRIED_ON) else None
        dice = [of[fold].mean if fold in of else None for fold in TRIED_ON]
        cells = [name, ", ".join(map(str, config.widths)), config.stem, f"{one.parameters:,}"]
        cells += [f"{one.bytes:,}", f"{one.macs / 1e6:.0f}"]
        cells += ["-" if value is None else f"{value:.3f}" for value in (*dice, rank)]
        lines.append((-(rank or 0.0), cells))
    lines.sort(key=lambda line: line[0])
    head = ("form", "widths", "first stride", "parameters", "int8 bytes", "million MACs")
    dice_of = [f"Dice, fold {fold}" for fold in TRIED_ON]
    return table((*head, *dice_of, "mean"), [cells for _, cells in lines])


if __name__ == "__main__":
    main()
