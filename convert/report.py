"""The report of a conversion: `report.json`, the tables that are printed, and `report.svg`.

In `report.json`, `gate` holds the gate's figure for each product: {by, limit, int8: {strategy,
tried}, fp16}. `strategy` is the quantization strategy that passed, null if int8 was rejected, and
`tried` holds all attempts. `layers` has an entry for each tensor of the int8 file
(`convert.verify.layer_errors.Layer`); a null ratio means no error at all. `targets` has the results
of the requested checks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from math import isfinite
from typing import Any

from convert.artifacts import ModelFile
from convert.pipeline import Conversion, ConversionResult
from convert.targets import TargetResult
from convert.tflite.reader import count_float_weights, ops_of, read_model
from convert.verify.acceptance import Evaluation, GateResult
from convert.verify.layer_errors import Layer

MAX_COLUMNS = 8
"""Outputs with a column of their own; if there are more, only their mean Dice is shown."""

DIGITS = {"low": 4, "high": 4, "clipped": 6, "snr": 1, "alone": 1, "share": 4}
ERROR, SHARE, BYTES = "#0072b2", "#d55e00", "#7f7f7f"  # distinct for colour-blind readers


def make_conversion_report(
    conversion: Conversion, result: ConversionResult, target_results: Sequence[TargetResult] = ()
) -> dict[str, Any]:
    """Return the content of `report.json`."""
    [fp32] = [read_model(file.content) for file in result.files if file.precision == "fp32"]
    report = {
        "name": conversion.source.name,
        "parameters": count_float_weights(fp32),
        "macs": sum(op.macs for op in ops_of(fp32)),
        **conversion.source.describe(),
        "gate": _gate_entry(conversion, result),
        "files": [_file_entry(file, result.evaluations[file.name]) for file in result.files],
        "layers": layer_entries(result.layers),
    }
    if result.layers_error:
        report["layers_unmeasured"] = result.layers_error
    if target_results:
        report["targets"] = [target.entry for target in target_results]
    return report


def layer_entries(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Return the layers for `report.json`, rounded to their significant digits."""
    return [
        {
            key: _rounded(value, DIGITS[key]) if key in DIGITS else value
            for key, value in asdict(layer).items()
        }
        for layer in layers
    ]


def file_table(files: Sequence[ModelFile], evaluations: Mapping[str, Evaluation]) -> str:
    """Return a line for each file: bytes, Dice, agreement with the network and the shipped file.

    A file that was not evaluated has only its bytes.
    """
    scored = [list(of.dice) for of in evaluations.values() if of.dice]
    regions = scored[0] if scored else []
    regions = regions if len(regions) <= MAX_COLUMNS else ["mean"]
    width = max(len(file.name) for file in files)
    head = "".join(f"  {region:>6}" for region in regions)
    lines = [f"{'file':{width}}{'bytes':>9}{head}  agreement"]
    for file in files:
        line = f"{file.name:{width}}{len(file.content):9,}"
        evaluation = evaluations.get(file.name)
        if evaluation is not None:
            dice = evaluation.dice or {}
            line += "".join(f"  {dice[region]:6.4f}" for region in regions)
            line += f"  {evaluation.agreement:9.4%}"
        if not file.product:
            line += "  (for comparison)"
        if evaluation is not None and evaluation.agreement_with_shipped is not None:
            line += f"  {evaluation.agreement_with_shipped:.4%} with the shipped file"
        lines.append(line)
    return "\n".join(lines)


def layer_table(layers: Sequence[Layer]) -> str:
    """Return a line for each layer."""
    width = max(len(layer.name) for layer in layers)
    lines = [
        f"{'':2}  {'layer':{width}}  {'op':23}  {'range':>18}  {'clipped':>8}  {'dB':>5}  "
        f"{'alone':>5}  {'share':>6}  {'bytes':>6}  {'MMAC':>6}"
    ]
    lines += [
        f"{layer.number:2}  {layer.name:{width}}  {layer.op:23}  "
        f"{layer.low:8.2f} to {layer.high:6.2f}  {layer.clipped:8.3%}  {_decibels(layer.snr)}  "
        f"{_decibels(layer.alone)}  {layer.share:6.1%}  {layer.bytes:6,}  {layer.macs / 1e6:6.2f}"
        for layer in layers
    ]
    lines.append(
        "dB: ratio of the float values to the int8 error; alone: that of the logits if only this "
        "layer is int8; share: of the error at the logits"
    )
    return "\n".join(lines)


def _gate_entry(conversion: Conversion, result: ConversionResult) -> dict[str, Any]:
    first = result.attempts[0].gate
    entry: dict[str, Any] = {"by": first.by, "limit": first.limit}
    if "int8" in conversion.precisions:
        last = result.attempts[-1].candidate
        entry["int8"] = {
            "strategy": None if result.int8_rejected else last.strategy,
            "tried": [
                {"strategy": attempt.candidate.strategy} | _gate_figure(attempt.gate)
                for attempt in result.attempts
            ],
        }
        if result.int8_rejected:
            entry["int8"]["refused"] = result.int8_rejected
    return entry | {p: _gate_figure(gate) for p, gate in result.float_gates.items()}


def _gate_figure(gate: GateResult) -> dict[str, Any]:
    return {gate.by: gate.value, "passed": gate.passed}


def _file_entry(file: ModelFile, evaluation: Evaluation) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": file.name,
        "precision": file.precision,
        "product": file.product,
        "bytes": len(file.content),
        "dice": evaluation.dice,
        "agreement": evaluation.agreement,
    }
    if evaluation.agreement_with_shipped is not None:
        entry["agreement_with_shipped"] = evaluation.agreement_with_shipped
    return entry


def _rounded(value: float, digits: int) -> float | None:
    return round(float(value), digits) if isfinite(value) else None


def _decibels(value: float) -> str:
    return f"{value:5.1f}" if isfinite(value) else f"{'-':>5}"


def draw_layers(name: str, layers: Sequence[Layer]) -> bytes:
    """Return an SVG of error and bytes by layer; the same layers give the same bytes."""
    from matplotlib.figure import Figure

    positions = range(len(layers))
    figure = Figure(figsize=(1.5 + 0.3 * len(layers), 6))
    error, cost = figure.subplots(2, 1, sharex=True)
    finite = [i for i in positions if isfinite(layers[i].snr)]
    error.plot(finite, [layers[i].snr for i in finite], color=ERROR, marker="o", ms=3, lw=1)
    error.set_ylabel("int8 against float, dB", color=ERROR)
    error.set_title(f"{name}: error and bytes along the network", fontsize=10)
    error.grid(axis="y", alpha=0.3)
    share = error.twinx()
    share.bar(positions, [100 * layer.share for layer in layers], color=SHARE, alpha=0.6, width=0.6)
    share.set_ylabel("share of the error at the logits, %", color=SHARE)
    cost.bar(positions, [layer.bytes for layer in layers], color=BYTES, width=0.6)
    cost.set_ylabel("bytes")
    cost.grid(axis="y", alpha=0.3)
    labels = [f"{layer.name}  {layer.op.lower()}" for layer in layers]
    cost.set_xticks(list(positions), labels, rotation=90, fontsize=7)
    return svg(figure)


def svg(figure: Any) -> bytes:
    """Return a matplotlib figure as SVG, without the ids and the date that change between runs."""
    import matplotlib as mpl

    content = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "glioslice", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return content.getvalue()
