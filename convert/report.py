"""`report.json`, and the same as tables.

Beside the files it holds `gate`, how each product stands: {by, limit, int8: {rung, tried}, fp16},
and `layers`, an entry for each tensor of the int8 file (`convert.layers.Layer`), where a null ratio
stands for no error at all. The rung of an int8 file that was given up is null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from convert.conversion import Conversion, Outcome
from convert.gate import Measure
from convert.judging import Verdict
from convert.layers import Layer
from convert.products import File
from glioslice.labels import REGIONS
from training.network import macs, parameters

DIGITS = {"low": 4, "high": 4, "clipped": 6, "snr": 1, "alone": 1, "share": 4}


def report_of(conversion: Conversion, outcome: Outcome) -> dict[str, Any]:
    """Return the content of `report.json`."""
    network, card, roles = conversion.network, conversion.card, conversion.roles
    return {
        "name": card.name,
        "parameters": parameters(network),
        "macs": macs(network, card.window),
        "calibrated_on": {
            "what": "cases" if roles.calibrated[0].digest else "phantoms",
            "names": [subject.name for subject in roles.calibrated],
            "slices": sum(len(subject.slices) for subject in roles.calibrated),
        },
        "judged_on": roles.judged_on
        | {"seen_in_training": any(s.digest in card.trained_on for s in roles.judged)},
        "gate": _gate(conversion, outcome),
        "files": [_entry(file, outcome.verdicts[file.name]) for file in outcome.files],
        "layers": layer_entries(outcome.layers),
    }


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
    """Return a line for each file: bytes, Dice, agreement with torch and with the shipped file."""
    columns = "  ".join(f"{region:>6}" for region in (*REGIONS, "mean"))
    lines = [f"{'file':24}{'bytes':>9}  {columns}  agreement"]
    for file in files:
        verdict = verdicts[file.name]
        dice = verdict.dice or {}
        scores = "  ".join(f"{dice[r]:6.4f}" if dice else "     -" for r in (*REGIONS, "mean"))
        line = f"{file.name:24}{len(file.content):9,}  {scores}  {verdict.agreement:9.4%}"
        if not file.product:
            line += "  (to compare)"
        if verdict.agreement_with_shipped is not None:
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
            "rung": None if outcome.refused else outcome.tried[-1].rung.name,
            "tried": [{"rung": a.rung.name} | _figure(a.measure) for a in outcome.tried],
        }
        if outcome.refused:
            entry["int8"]["refused"] = outcome.refused
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
