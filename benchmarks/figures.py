"""Write the figures of README.md from the cards, and the demo's picture from the phantom.

python benchmarks/figures.py
"""

import argparse
from pathlib import Path

from device.engine import Engine
from device.segment import segment
from glioslice import command
from glioslice.card import SHIPPED, default_model, read_card, shipped
from glioslice.cases import phantom_case
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.montage import write_montage

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- figures: benchmarks/figures.py -->", "<!-- end of figures -->"


def main() -> None:
    """Write them."""
    example = "python benchmarks/figures.py"
    command.run(work, command.parser("Write the figures of README.md.", example).parse_args())


def work(_arguments: argparse.Namespace) -> None:
    """Put the table between its two marks, and the picture into docs/."""
    readme = ROOT / "README.md"
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise GliosliceError(f"{readme}: the marks {BEGIN} and {END} are missing")
    write_bytes(readme, f"{before}{BEGIN}\n{table()}\n{END}{after}".encode())
    case = phantom_case(0)
    found = segment(case.images, Engine(default_model()))
    write_montage(ROOT / "docs" / "demo.png", case.images, found.labels)
    print(f"written: the table of {readme.name}, docs/demo.png")


def table() -> str:
    """Return a row a shipped TFLite file: bytes, parameters, and its held-out Dice."""
    rows = [
        "| file | bytes | parameters | WT | TC | ET | patients |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in SHIPPED:
        content = read_card(shipped(size)).content
        held_out = content["held_out"]
        for name, scores in sorted(held_out["dice"].items()):
            dice = " | ".join(f"{scores['mean'][region]:.2f}" for region in ("WT", "TC", "ET"))
            rows.append(
                f"| `models/{size}/{name}` | {content['files'][name]['bytes']:,} | "
                f"{content['network']['parameters']:,} | {dice} | {len(held_out['cases'])} |"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
