"""Write the figures of README.md and docs/conversion.md, and the demo's picture of the phantom.

python tools/figures.py
"""

import argparse

from benchmarks import conversions
from benchmarks.folds import ROOT
from benchmarks.pages import fill, table
from device.engine import Engine
from device.segment import segment
from glioslice import cli
from glioslice.cases import phantom_case
from glioslice.labels import REGIONS
from glioslice.model_card import SHIPPED, default_model, read_card, shipped
from glioslice.montage import write_montage
from tools.cards import unseen


def main() -> None:
    """Write them."""
    example = "python tools/figures.py"
    cli.run(work, cli.parser("Write the figures of README.md and docs/.", example).parse_args())


def work(_arguments: argparse.Namespace) -> None:
    """Write the table of README.md, and the picture into docs/."""
    fill(ROOT / "README.md", {"shipped": shipped_table()})
    fill(
        ROOT / "docs" / "conversion.md",
        {
            "files": conversions.files_table(),
            "gate": conversions.gate_table(),
            "layers": conversions.layers_table(),
            "targets": conversions.targets_table(),
        },
    )
    case = phantom_case(0)
    found = segment(case.images, Engine(default_model()))
    write_montage(ROOT / "docs" / "demo.png", case.images, found.labels)
    print("written: the tables of README.md and docs/conversion.md, docs/demo.png")


def shipped_table() -> str:
    """Return a row a shipped TFLite file: bytes, parameters, and its Dice on patients not seen."""
    rows = []
    for size in SHIPPED:
        content = read_card(shipped(size)).content
        for name in sorted(content["files"]):
            if name.endswith(".tflite"):
                scores = unseen(content)[name]
                rows.append([
                    f"`models/{size}/{name}`", f"{content['files'][name]['bytes']:,}",
                    f"{content['network']['parameters']:,}",
                    *(f"{scores['mean'][region]:.2f}" for region in REGIONS), scores["patients"],
                ])  # fmt: skip
    return table(("file", "bytes", "parameters", *REGIONS, "patients"), rows)


if __name__ == "__main__":
    main()
