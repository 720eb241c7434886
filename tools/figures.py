"""Write the tables of README.md and docs/conversion.md, and the picture of the demo.

    python tools/figures.py

They are made of the shipped models and their `report.json`.
"""

import argparse
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks import ROOT
from benchmarks.pages import fill, table
from benchmarks.scores import BOTH, read_healthy
from convert.to_tflite import TARGETS
from device.engine import Engine
from device.segment import segment
from glioslice import cli
from glioslice.cases import phantom_case
from glioslice.files import read_json
from glioslice.labels import REGIONS
from glioslice.model_card import SHIPPED_MODELS, find_model, read_card, shipped_folder
from glioslice.montage import write_montage
from tools.cards import unseen_dice

PURPOSES = {
    "compact": "speed, and little memory on a microcontroller",
    "nano": "the smallest file, fp16, and the fewest false positives",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and write them."""
    example = "python tools/figures.py"
    parser = cli.parser("Write the figures of README.md and docs/.", example)
    cli.run(write_figures, parser.parse_args(argv))


def write_figures(_arguments: argparse.Namespace) -> None:
    """Write the tables and the picture."""
    fill(ROOT / "README.md", {"choice": choice_table(), "shipped": shipped_table()})
    fill(
        ROOT / "docs" / "conversion.md",
        {
            "files": files_table(),
            "gate": gate_table(),
            "layers": layers_table(),
            "targets": targets_table(),
        },
    )
    case = phantom_case(0)
    found = segment(case.images, Engine(find_model()))
    write_montage(ROOT / "docs" / "demo.png", case.images, found.labels)
    print("written: the tables of README.md and docs/conversion.md, docs/demo.png")


def choice_table() -> str:
    """Return what decides between the shipped models, a column for each."""
    columns = []
    for size, purpose in PURPOSES.items():
        content = read_card(shipped_folder(size)).content
        int8 = f"{size}-int8.tflite"
        precisions = sorted(
            f["precision"] for name, f in content["files"].items() if name.endswith(".tflite")
        )
        columns.append([
            size, purpose, f"{unseen_dice(content)[int8]['mean']['mean']:.3f}",
            f"{median(read_healthy(size, BOTH)):.2f} mL",
            f"{content['network']['macs'] / 1e6:.0f} million",
            f"{content['files'][int8]['bytes']:,}", " and ".join(precisions),
        ])  # fmt: skip
    names = (
        "", "choose it for", "mean Dice in cross-validation",
        "false positives in a healthy phantom, median", "multiply-accumulate operations per slice",
        "bytes of the int8 file", "precisions",
    )  # fmt: skip
    head, *rows = zip(names, *columns, strict=True)
    return table(head, rows)


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


def reports() -> list[dict[str, Any]]:
    """Return the reports of the shipped models."""
    return [read_json(shipped_folder(size) / "report.json") for size in SHIPPED_MODELS]


def files_table() -> str:
    """Return a row for each file: bytes, agreement with torch, and whether it is shipped."""
    rows = [
        [
            file["name"],
            f"{file['bytes']:,}",
            f"{file['agreement']:.4%}",
            "product" if file["product"] else "for comparison",
        ]
        for report in reports()
        for file in report["files"]
    ]
    return table(("file", "bytes", "agreement with torch", ""), rows)


def gate_table() -> str:
    """Return a row for each product: its loss of Dice against its fp32 file."""
    rows = []
    for report in reports():
        gate, judged = report["gate"], report["judged_on"]
        for precision in ("int8", "fp16"):
            if precision in gate:
                how = gate[precision]
                last = how["tried"][-1] if "tried" in how else how
                rows.append([
                    f"{report['name']} {precision}", how.get("strategy", "-"),
                    f"{len(judged['names'])} {judged['what']}",
                    f"{last[gate['by']]:.4f}", f"{gate['limit']:g}",
                ])  # fmt: skip
    return table(
        ("product", "quantization strategy", "evaluated on", "loss of Dice against fp32", "limit"),
        rows,
    )


def layers_table(size: str = "compact") -> str:
    """Return a row for each tensor of a shipped int8 file."""
    rows = [
        [
            layer["number"], layer["name"], layer["op"].lower(),
            f"{layer['low']:.2f} to {layer['high']:.2f}", f"{layer['clipped']:.3%}",
            _decibels(layer["snr"]), _decibels(layer["alone"]), f"{layer['share']:.1%}",
            f"{layer['bytes']:,}", f"{layer['macs'] / 1e6:.2f}",
        ]
        for layer in read_json(shipped_folder(size) / "report.json")["layers"]
    ]  # fmt: skip
    head = ("", "layer", "op", "range", "clipped", "dB", "alone", "share", "bytes", "million MACs")
    return table(head, rows)


def targets_table() -> str:
    """Return the result of each target's check of the shipped int8 files."""
    rows = []
    for size in SHIPPED_MODELS:
        path = shipped_folder(size) / f"{size}-int8.tflite"
        for target, check in TARGETS.items():
            found = check(path.read_bytes(), path.stem)
            cells = "; ".join(f"{what}: {value}" for what, value in found.rows)
            rows.append([size, f"`{target}`", found.verdict, cells])
    return table(("int8", "target", "", "findings"), rows)


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()
