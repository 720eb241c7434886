"""Write the tables of README.md and docs/conversion.md, and the picture of the demo.

python tools/figures.py
"""

import argparse
from collections.abc import Sequence

from benchmarks import ROOT
from benchmarks.pages import fill, table
from device.engine import Engine
from device.segment import segment
from glioslice import cli
from glioslice.cases import phantom_case
from glioslice.labels import REGIONS
from glioslice.model_card import SHIPPED_MODELS, find_model, read_card, shipped_folder
from glioslice.montage import write_montage
from tools import conversion_tables
from tools.cards import unseen_dice


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and write them."""
    example = "python tools/figures.py"
    parser = cli.parser("Write the figures of README.md and docs/.", example)
    cli.run(write_figures, parser.parse_args(argv))


def write_figures(_arguments: argparse.Namespace) -> None:
    """Write the tables and the picture."""
    fill(ROOT / "README.md", {"shipped": shipped_table()})
    fill(
        ROOT / "docs" / "conversion.md",
        {
            "files": conversion_tables.files_table(),
            "gate": conversion_tables.gate_table(),
            "layers": conversion_tables.layers_table(),
            "targets": conversion_tables.targets_table(),
        },
    )
    case = phantom_case(0)
    found = segment(case.images, Engine(find_model()))
    write_montage(ROOT / "docs" / "demo.png", case.images, found.labels)
    print("written: the tables of README.md and docs/conversion.md, docs/demo.png")


def shipped_table() -> str:
    """Return a row for each shipped file: bytes, parameters, and Dice on unseen patients."""
    rows = []
    for size in SHIPPED_MODELS:
        content = read_card(shipped_folder(size)).content
        for name in sorted(content["files"]):
            if name.endswith(".tflite"):
                scores = unseen_dice(content)[name]
                rows.append([
                    f"`models/{size}/{name}`", f"{content['files'][name]['bytes']:,}",
                    f"{content['network']['parameters']:,}",
                    *(f"{scores['mean'][region]:.2f}" for region in REGIONS), scores["patients"],
                ])  # fmt: skip
    return table(("file", "bytes", "parameters", *REGIONS, "patients"), rows)


if __name__ == "__main__":
    main()
