"""Stream a volume over simulated lines of three rates, and say what limits each of them.

    python benchmarks/line.py             benchmarks/line/rates.csv, docs/wire.md, README.md
    python benchmarks/line.py --quick     the fastest line alone, printed and not kept
    python benchmarks/line.py --pages     both pages from what is kept

Three ways on each line: the host sends slices losslessly, or as it does by default, or the board
plays a case of its own. Both ends are fixed to the line's rate, so that no time goes to finding it;
each run is `stream.py` with the shipped board, and its recording is what is measured. The volume is
the first patient of ../shared/data/brats, or the phantom: what is reported of it are counts.
"""

import argparse
import csv
import io
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import nibabel as nib

from benchmarks.line_figures import Figures, figures
from benchmarks.pages import fill, table
from benchmarks.runs import ROOT
from glioslice import command
from glioslice.cases import MODALITIES, find_cases, phantom_case
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.progress import track

RATES = ROOT / "benchmarks" / "line" / "rates.csv"
PATIENTS = ROOT.parent / "shared" / "data" / "brats"
STREAM = [sys.executable, str(ROOT / "firmware_host" / "stream.py")]

BAUDS = 115200, 921600, 3_000_000
WAYS: dict[str, tuple[str, ...]] = {
    "lossless": ("--images", "lossless"),
    "default": (),
    "play": ("--play",),
}

FULL = 0.95
"""The share of a clean line that first-time payload is to fill where the line is what limits."""

AIMS = {
    ("play", 115200): 90,
    ("default", 115200): 3,
    ("default", 921600): 25,
    ("default", 3_000_000): 60,
}
"""Slices a second."""


def main() -> None:
    """Do what the command line says."""
    parser = command.parser(
        "Stream a volume over simulated lines and measure.", "python benchmarks/line.py --quick"
    )
    parser.add_argument(
        "--input", type=Path, metavar="CASE", help="default: a patient, or the phantom"
    )
    parser.add_argument("--quick", action="store_true", help="the fastest line, printed, not kept")
    parser.add_argument("--pages", action="store_true", help="write the pages from what is kept")
    command.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Measure, print, and keep the figures."""
    if not arguments.pages:
        case = arguments.input or patient()
        plan = [(way, baud) for baud in BAUDS for way in WAYS]
        plan = plan[-len(WAYS) :] if arguments.quick else plan
        found = [streamed(way, baud, case) for way, baud in track(plan, "streaming")]
        print(rates_table([asdict(one) for one in found]), *verdicts(found), sep="\n")
        if arguments.quick:
            return
        write_bytes(RATES, text_of(found).encode())
    write_pages()


def patient() -> Path | None:
    """Return the first patient that is at hand, None for the phantom."""
    return PATIENTS / find_cases(PATIENTS)[0].name if PATIENTS.is_dir() else None


def streamed(way: str, baud: int, case: Path | None) -> Figures:
    """Return the figures of one run; raises GliosliceError if it failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["--port", f"sim://?baud={baud}", "--baud", baud, *WAYS[way]]
        words += ["--output", folder / "mask.nii.gz", "--record", folder / "session.rec"]
        words += ["--input", case or written_phantom(folder)]
        done = subprocess.run(
            [*STREAM, *map(str, words)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            raise GliosliceError(f"{way} at {baud} baud: {'; '.join(errors) or done.stderr}")
        return figures(folder / "session.rec", way, baud)


def verdicts(found: Sequence[Figures]) -> list[str]:
    """Return a line for each aim: reached or not."""
    lines = []
    for one in found:
        aim = AIMS.get((one.way, one.baud))
        if aim is not None:
            what = "reached" if one.slices_per_second >= aim else "MISSED"
            lines.append(f"{one.way} at {one.baud}: {one.slices_per_second} of {aim}/s: {what}")
        if one.way == "lossless":
            what = "reached" if one.payload >= FULL else "MISSED"
            lines.append(f"{one.way} at {one.baud}: payload fills {one.payload:.3f}: {what}")
    return lines


def text_of(found: Sequence[Figures]) -> str:
    """Return figures as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(Figures)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(one) for one in found)
    return text.getvalue()


def written_phantom(folder: Path) -> Path:
    """Write the phantom as a case, which a board that plays can read, and return its folder."""
    case = phantom_case(0)
    (folder / case.name).mkdir()
    for modality, image in zip(MODALITIES, case.images, strict=True):
        voxels = case.space.from_lps(image)
        path = folder / case.name / f"{case.name}_{modality}.nii.gz"
        nib.save(nib.Nifti1Image(voxels, case.space.affine), path)
    return folder / case.name


def rates_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a row a run."""
    head = (
        "line, baud", "images", "slices/s", "line used", "by messages", "wait ms, median", "p90",
        "overhead", "repeated bytes",
    )  # fmt: skip
    return table(
        head,
        [
            (
                f"{int(str(one['baud'])):,}",
                one["way"],
                f"{float(str(one['slices_per_second'])):.1f}",
                f"{float(str(one['line_used'])):.1%}",
                f"{float(str(one['payload'])):.1%}",
                one["wait_ms_median"] or "",
                one["wait_ms_p90"] or "",
                f"{float(str(one['overhead'])):.1%}",
                one["repeated_bytes"],
            )
            for one in rows
        ],
    )


def line_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a row a line: the slices a second of each way."""
    rates = {(one["way"], int(one["baud"])): float(one["slices_per_second"]) for one in rows}
    bauds = sorted({baud for _, baud in rates})
    return table(
        ("line, baud", *(f"{way}, slices/s" for way in WAYS)),
        [(f"{baud:,}", *(f"{rates[way, baud]:.1f}" for way in WAYS)) for baud in bauds],
    )


def write_pages(path: Path = RATES, root: Path = ROOT) -> None:
    """Put what was measured into docs/wire.md and README.md."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    slices, machine = rows[0]["slices"], rows[0]["machine"]
    on = f"A volume of {slices} slices, board and desk on one machine ({machine})."
    fill(root / "docs" / "wire.md", {"line": f"{on}\n\n{rates_table(rows)}"})
    fill(root / "README.md", {"line": line_table(rows)})
    print(f"written: {path.name}, the tables of docs/wire.md and README.md")


if __name__ == "__main__":
    main()
