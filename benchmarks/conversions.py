"""The tables of docs/conversion.md, from the shipped models and their `report.json`."""

from typing import Any

from benchmarks.pages import table
from convert.targets import TARGETS
from glioslice.files import read_json
from glioslice.model_card import SHIPPED, shipped


def reports() -> list[dict[str, Any]]:
    """Return the reports of the shipped models."""
    return [read_json(shipped(size) / "report.json") for size in SHIPPED]


def files_table() -> str:
    """Return a row a file: bytes, agreement with torch, and whether it is shipped."""
    rows = [
        [
            file["name"],
            f"{file['bytes']:,}",
            f"{file['agreement']:.4%}",
            "product" if file["product"] else "to compare",
        ]
        for report in reports()
        for file in report["files"]
    ]
    return table(("file", "bytes", "agreement with torch", ""), rows)


def gate_table() -> str:
    """Return a row a product: how it stands beside its fp32 file."""
    rows = []
    for report in reports():
        gate, judged = report["gate"], report["judged_on"]
        for precision in ("int8", "fp16"):
            if precision in gate:
                how = gate[precision]
                last = how["tried"][-1] if "tried" in how else how
                rows.append([
                    f"{report['name']} {precision}", how.get("rung", "-"),
                    f"{len(judged['names'])} {judged['what']}",
                    f"{last[gate['by']]:.4f}", f"{gate['limit']:g}",
                ])  # fmt: skip
    return table(("product", "rung that held", "judged on", "Dice below fp32", "limit"), rows)


def layers_table(size: str = "compact") -> str:
    """Return a row a tensor of a shipped int8 file."""
    rows = [
        [
            layer["number"], layer["name"], layer["op"].lower(),
            f"{layer['low']:.2f} to {layer['high']:.2f}", f"{layer['clipped']:.3%}",
            _decibels(layer["snr"]), _decibels(layer["alone"]), f"{layer['share']:.1%}",
            f"{layer['bytes']:,}", f"{layer['macs'] / 1e6:.2f}",
        ]
        for layer in read_json(shipped(size) / "report.json")["layers"]
    ]  # fmt: skip
    head = ("", "layer", "op", "range", "clipped", "dB", "alone", "share", "bytes", "million MACs")
    return table(head, rows)


def targets_table() -> str:
    """Return what the check for each target says of the shipped int8 files."""
    rows = []
    for size in SHIPPED:
        path = shipped(size) / f"{size}-int8.tflite"
        for target, check in TARGETS.items():
            found = check(path.read_bytes(), path.stem)
            said = "; ".join(f"{what}: {value}" for what, value in found.rows)
            rows.append([size, f"`{target}`", "suits" if found.ok else "does not suit", said])
    return table(("int8", "target", "", "what was found"), rows)


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
