"""`report.json`, and the same as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from convert.calibration import Roles
from convert.judging import Verdict
from convert.products import File
from glioslice.card import Card
from glioslice.labels import REGIONS
from training.network import Network, macs, parameters


def report_of(
    network: Network,
    card: Card,
    files: Sequence[File],
    verdicts: Mapping[str, Verdict],
    roles: Roles,
) -> dict[str, Any]:
    """Return the content of `report.json`; `network` still has its batch norms."""
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
        "files": [_entry(file, verdicts[file.name]) for file in files],
    }


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
