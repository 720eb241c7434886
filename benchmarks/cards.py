"""Score a shipped model's held-out cases from its packed files, into its card.

    python benchmarks/cards.py models/compact --data ../shared/data/brats

Writes `held_out.dice` of card.json, a file's mean and its cases, and the readable card README.md.
"""

import argparse
from pathlib import Path
from typing import Any

from device.engine import Engine
from device.segment import segment
from glioslice import command
from glioslice.card import CARD, read_card
from glioslice.cases import digest, find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes, write_json
from glioslice.labels import REGIONS
from training.evaluate import mean_of, score


def main() -> None:
    """Read the command line and score."""
    parser = command.parser(
        "Score the held-out cases of a model folder from its packed files.",
        "python benchmarks/cards.py models/compact --data ../shared/data/brats",
    )
    parser.add_argument("folder", type=Path, metavar="MODEL", help="a model folder")
    parser.add_argument("--data", type=Path, required=True, help="a folder of cases")
    command.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Write the Dice of the held-out cases into the card, and the card for readers."""
    folder: Path = arguments.folder
    content = read_card(folder).content
    held_out = {entry["digest"]: entry["case"] for entry in content["held_out"]["cases"]}
    files = [name for name in sorted(content["files"]) if name.endswith(".tflite")]
    engines = [Engine(folder / name) for name in files]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
    for case_files in find_cases(arguments.data):
        if case_files.name not in held_out.values():
            continue
        case = read_case(case_files)
        if digest(case) not in held_out:
            raise GliosliceError(f"{case.name}: its images are not those that were held out")
        for name, engine in zip(files, engines, strict=True):
            labels = segment(case.images, engine).labels
            rows[name].append(score(case, labels, engine.card))
    if missing := set(held_out.values()) - {row["case"] for row in rows[files[0]]}:
        raise GliosliceError(f"{arguments.data}: lacks the held-out {', '.join(sorted(missing))}")
    content["held_out"]["dice"] = {
        name: {"mean": mean_of(scored), "cases": {r["case"]: r["dice"] for r in scored}}
        for name, scored in rows.items()
    }
    content["held_out"]["runtime"] = engines[0].runtime
    write_json(folder / CARD, content)
    write_bytes(folder / "README.md", readable(content).encode())
    print(f"{folder / CARD} and its README.md: {len(held_out)} held-out cases scored")


def readable(content: dict[str, Any]) -> str:
    """Return the card as Markdown."""
    network, training, held_out = content["network"], content["training"], content["held_out"]
    lines = [
        f"# {content['name']}",
        "",
        "Written by `python benchmarks/cards.py` from `card.json`; do not edit.",
        "",
        content["intended_use"],
        "",
        f"{network['parameters']:,} parameters, {network['macs'] / 1e6:.0f} million "
        f"multiply-accumulates a slice of {' x '.join(map(str, content['input']['window']))}; "
        f"channels a level {', '.join(map(str, network['widths']))}.",
        "",
        "| file | precision | bytes | sha256 |",
        "|---|---|---|---|",
        *(
            f"| {name} | {entry['precision']} | {entry['bytes']:,} | `{entry['sha256'][:16]}` |"
            for name, entry in sorted(content["files"].items())
        ),
        "",
        f"Trained on {len(training['cases'])} patients, {training['epochs']} epochs of "
        f"{training['steps']} batches of {training['batch']} slices, seed {training['seed']}.",
        f"Held out, never seen in training: {len(held_out['cases'])} patients. Volume Dice of the "
        f"packed files on {held_out['runtime']}:",
    ]
    for name, scores in sorted(held_out["dice"].items()):
        lines += ["", f"| {name} | {' | '.join(REGIONS)} | mean |", "|---|---|---|---|---|"]
        rows = {**scores["cases"], "**mean**": scores["mean"]}
        lines += [
            f"| {case} | {' | '.join(f'{value:.3f}' for value in dice.values())} |"
            for case, dice in rows.items()
        ]
    lines += ["", "## Licence and credits", "", content["licence"], ""]
    lines += [f"- {credit}" for credit in content["credits"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
