"""`report.json`, and the same as tables.

Beside the files it holds `gate`, how each product stands: {by, limit, int8: {rung, tried}, fp16},
`layers`, an entry for each tensor of the int8 file (`convert.verify.layer_errors.Layer`), where a null ratio
stands for no error at all, and `targets`, what each that was asked for says of the int8 file. The
rung of an int8 file that was given up is null.

The layers of a network as one picture: where the error is, and where the bytes are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from math import isfinite
from typing import Any

from convert.artifacts import File
from convert.pipeline import Conversion, Outcome
from convert.targets.result import Outcome as Suited
from convert.tflite.ops import ops_of, parameters_of
from convert.tflite.reader import read_model
from convert.verify.acceptance import Measure, Verdict
from convert.verify.layer_errors import Layer

MOST_COLUMNS = 8
"""Of a table: where a network has more outputs, only their mean Dice is shown."""

DIGITS = {"low": 4, "high": 4, "clipped": 6, "snr": 1, "alone": 1, "share": 4}


def report_of(
    conversion: Conversion, outcome: Outcome, suited: Sequence[Suited] = ()
) -> dict[str, Any]:
    """Return the content of `report.json`."""
    [fp32] = [read_model(file.content) for file in outcome.files if file.precision == "fp32"]
    report = {
        "name": conversion.source.name,
        "parameters": parameters_of(fp32),
        "macs": sum(op.macs for op in ops_of(fp32)),
        **conversion.source.account(),
        "gate": _gate(conversion, outcome),
        "files": [_entry(file, outcome.verdicts[file.name]) for file in outcome.files],
        "layers": layer_entries(outcome.layers),
    }
    if outcome.unmeasured:
        report["layers_unmeasured"] = outcome.unmeasured
    return report | ({"targets": [of.entry for of in suited]} if suited else {})


def layer_entries(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Return the layers for `report.json`, with as many digits as mean something."""
    return [
        {
            key: _rounded(value, DIGITS[key]) if key in DIGITS else value
            for key, value in asdict(layer).items()
        }
        for layer in layers
    ]


def table(files: Sequence[File], verdicts: Mapping[str, Verdict]) -> str:
    """Return a line for each file: bytes, Dice, agreement with the network and the shipped file.

    A file that was not judged has its bytes alone.
    """
    scored = [list(of.dice) for of in verdicts.values() if of.dice]
    regions = scored[0] if scored else []
    regions = regions if len(regions) <= MOST_COLUMNS else ["mean"]
    wide = max(len(file.name) for file in files)
    head = "".join(f"  {region:>6}" for region in regions)
    lines = [f"{'file':{wide}}{'bytes':>9}{head}  agreement"]
    for file in files:
        line = f"{file.name:{wide}}{len(file.content):9,}"
        verdict = verdicts.get(file.name)
        if verdict is not None:
            dice = verdict.dice or {}
            line += "".join(f"  {dice[region]:6.4f}" for region in regions)
            line += f"  {verdict.agreement:9.4%}"
        if not file.product:
            line += "  (to compare)"
        if verdict is not None and verdict.agreement_with_shipped is not None:
            line += f"  {verdict.agreement_with_shipped:.4%} as shipped"
        lines.append(line)
    return "\n".join(lines)


def layer_table(layers: Sequence[Layer]) -> str:
    """Return a line for each layer."""
    wide = max(len(layer.name) for layer in layers)
    lines = [
        f"{'':2}  {'layer':{wide}}  {'op':23}  {'range':>18}  {'clipped':>8}  {'dB':>5}  "
        f"{'alone':>5}  {'share':>6}  {'bytes':>6}  {'MMAC':>6}"
    ]
    lines += [
        f"{layer.number:2}  {layer.name:{wide}}  {layer.op:23}  "
        f"{layer.low:8.2f} to {layer.high:6.2f}  {layer.clipped:8.3%}  {_decibels(layer.snr)}  "
        f"{_decibels(layer.alone)}  {layer.share:6.1%}  {layer.bytes:6,}  {layer.macs / 1e6:6.2f}"
        for layer in layers
    ]
    lines.append(
        "dB: float values to the error of int8; alone: the same of the logits where this layer "
        "alone is int8; share: of the error at the logits"
    )
    return "\n".join(lines)


def _gate(conversion: Conversion, outcome: Outcome) -> dict[str, Any]:
    one = outcome.tried[0].measure
    entry: dict[str, Any] = {"by": one.by, "limit": one.limit}
    if "int8" in conversion.precisions:
        entry["int8"] = {
            "rung": None if outcome.left_out else outcome.tried[-1].rung.name,
            "tried": [{"rung": a.rung.name} | _figure(a.measure) for a in outcome.tried],
        }
        if outcome.left_out:
            entry["int8"]["refused"] = outcome.left_out
    return entry | {precision: _figure(of) for precision, of in outcome.others.items()}


def _entry(file: File, verdict: Verdict) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": file.name,
        "precision": file.precision,
        "product": file.product,
        "bytes": len(file.content),
        "dice": verdict.dice,
        "agreement": verdict.agreement,
    }
    if verdict.agreement_with_shipped is not None:
        entry["agreement_with_shipped"] = verdict.agreement_with_shipped
    return entry


def _figure(of: Measure) -> dict[str, Any]:
    return {of.by: of.value, "held": of.held}


def _rounded(value: float, digits: int) -> float | None:
    return round(float(value), digits) if isfinite(value) else None


def _decibels(value: float) -> str:
    return f"{value:5.1f}" if isfinite(value) else f"{'-':>5}"


ERROR, SHARE, BYTES = "#0072b2", "#d55e00", "#7f7f7f"  # told apart by all eyes


def picture(name: str, layers: Sequence[Layer]) -> bytes:
    """Return an SVG of error and bytes along the network; the same layers give the same bytes."""
    from matplotlib.figure import Figure

    places = range(len(layers))
    figure = Figure(figsize=(1.5 + 0.3 * len(layers), 6))
    error, cost = figure.subplots(2, 1, sharex=True)
    known = [place for place in places if isfinite(layers[place].snr)]
    error.plot(known, [layers[i].snr for i in known], color=ERROR, marker="o", ms=3, lw=1)
    error.set_ylabel("int8 against float, dB", color=ERROR)
    error.set_title(f"{name}: error and bytes along the network", fontsize=10)
    error.grid(axis="y", alpha=0.3)
    share = error.twinx()
    share.bar(places, [100 * layer.share for layer in layers], color=SHARE, alpha=0.6, width=0.6)
    share.set_ylabel("share of the error at the logits, %", color=SHARE)
    cost.bar(places, [layer.bytes for layer in layers], color=BYTES, width=0.6)
    cost.set_ylabel("bytes")
    cost.grid(axis="y", alpha=0.3)
    labels = [f"{layer.name}  {layer.op.lower()}" for layer in layers]
    cost.set_xticks(list(places), labels, rotation=90, fontsize=7)
    return svg(figure)


def svg(figure: Any) -> bytes:
    """Return a matplotlib figure as SVG; its usual ids and date would change from run to run."""
    import matplotlib as mpl

    content = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "glioslice", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return content.getvalue()
