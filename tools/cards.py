"""Put into a shipped model's card how good it is on patients it has not seen, and make it readable.

    python tools/cards.py models/compact --data ../shared/data/brats

A model that held patients out is scored on them (`held_out.dice`). One that was trained on all is
never scored on patients it saw: its card quotes the four folds (`folds`), whose networks were
trained by the same recipe. The readable card is README.md beside card.json.
"""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks.accuracy_tables import VALUES, interval, mean, pooled
from benchmarks.folds import FOLDS, Run, patients
from benchmarks.pages import table
from device.engine import Engine
from device.segment import segment
from glioslice import cli
from glioslice.cases import digest, find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes, write_json
from glioslice.model_card import CARD, read_card
from training.config import Recipe
from training.evaluate import mean_of, score

TFLITE = ".tflite"


def main() -> None:
    """Read the command line and write the cards."""
    parser = cli.parser(
        "Write into a model's card how good it is on patients it has not seen.",
        "python tools/cards.py models/compact --data ../shared/data/brats",
    )
    parser.add_argument("folder", type=Path, metavar="MODEL", help="a model folder")
    parser.add_argument("--data", type=Path, help="a folder of cases, for a model that held out")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Write the card's figures, and the card for readers."""
    folder: Path = arguments.folder
    content = read_card(folder).content
    if not content["held_out"]["cases"]:
        content["folds"] = quoted(content)
    elif arguments.data:
        content["held_out"] |= scored(folder, content, arguments.data)
    else:
        raise GliosliceError(f"{folder}: held patients out; --data says where they are")
    write_json(folder / CARD, content)
    write_bytes(folder / "README.md", readable(content).encode())
    print(f"{folder / CARD} and its README.md are written")


def quoted(content: dict[str, Any]) -> dict[str, Any]:
    """Return the folds' figures for the files of a model: mean Dice and its interval.

    Raises GliosliceError if a fold has not been scored, or was trained by another recipe.
    """
    figures = {}
    for fold in FOLDS:
        run = Run(content["name"], fold)
        training = read_card(run.folder).content["training"]
        for field in fields(Recipe):
            theirs, mine = training.get(field.name), content["training"].get(field.name)
            if theirs != mine:
                raise GliosliceError(
                    f"{run.name}: was trained with {field.name} {theirs}, the model with {mine}; "
                    "its card cannot quote it"
                )
    for name, entry in content["files"].items():
        if name.endswith(TFLITE):
            scores = pooled(content["name"], entry["precision"])
            if len(scores) != len(patients()):
                raise GliosliceError(f"{name}: its folds have not been scored; make folds first")
            figures[name] = {
                "patients": len(scores),
                "mean": {key: round(mean(scores, value), 4) for key, value in VALUES.items()},
                "interval": {
                    key: [round(end, 3) for end in interval(scores, value)]
                    for key, value in VALUES.items()
                },
            }
    return figures


def scored(folder: Path, content: dict[str, Any], data: Path) -> dict[str, Any]:
    """Return the Dice of a model's files on the patients that it held out.

    Raises GliosliceError if one is missing in `data` or is not the one that was held out.
    """
    held_out = {entry["digest"]: entry["case"] for entry in content["held_out"]["cases"]}
    files = [name for name in sorted(content["files"]) if name.endswith(TFLITE)]
    engines = [Engine(folder / name) for name in files]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
    for case_files in find_cases(data):
        if case_files.name not in held_out.values():
            continue
        case = read_case(case_files)
        if digest(case) not in held_out:
            raise GliosliceError(f"{case.name}: its images are not those that were held out")
        for name, engine in zip(files, engines, strict=True):
            labels = segment(case.images, engine).labels
            rows[name].append(score(case, labels, engine.card))
    if missing := set(held_out.values()) - {row["case"] for row in rows[files[0]]}:
        raise GliosliceError(f"{data}: lacks the held-out {', '.join(sorted(missing))}")
    dice = {
        name: {"mean": mean_of(scores), "cases": {r["case"]: r["dice"] for r in scores}}
        for name, scores in rows.items()
    }
    return {"dice": dice, "runtime": engines[0].runtime}


def unseen(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for each file the mean Dice on patients not seen, and how many they are."""
    if content["held_out"]["cases"]:
        return {
            name: {"mean": scores["mean"], "patients": len(scores["cases"])}
            for name, scores in content["held_out"]["dice"].items()
        }
    folds: dict[str, dict[str, Any]] = content["folds"]
    return folds


def readable(content: dict[str, Any]) -> str:
    """Return the card as Markdown."""
    network, training = content["network"], content["training"]
    files = [
        [name, entry["precision"], f"{entry['bytes']:,}", f"`{entry['sha256'][:16]}`"]
        for name, entry in sorted(content["files"].items())
    ]
    parts = [
        f"# {content['name']}",
        "Written by `python tools/cards.py` from `card.json`; do not edit.",
        content["intended_use"],
        f"{network['parameters']:,} parameters, {network['macs'] / 1e6:.0f} million "
        f"multiply-accumulates a slice of {' x '.join(map(str, content['input']['window']))}; "
        f"channels a level {', '.join(map(str, network['widths']))}.",
        table(("file", "precision", "bytes", "sha256"), files),
        f"Trained on {len(training['cases'])} patients, {training['epochs']} epochs of "
        f"{training['steps']} batches of {training['batch']}, seed {training['seed']}"
        f"{cubes(training)}.",
        *(held_out(content) if content["held_out"]["cases"] else folds(content)),
        "## Data",
        "Each case by the SHA-256 of its images:",
        table(
            ("case", "digest"), [[c["case"], f"`{c['digest'][:16]}`"] for c in training["cases"]]
        ),
        "## Licence and credits",
        content["licence"],
        "\n".join(f"- {credit}" for credit in content["credits"]),
    ]
    return "\n\n".join(parts) + "\n"


def cubes(training: dict[str, Any]) -> str:
    """Return what the card says of the lesion cubes that were trained on."""
    used = training.get("cubes")
    return f", with lesion cubes of {used['patients']} patients" if used else ""


def held_out(content: dict[str, Any]) -> list[str]:
    """Return the figures of a model that held patients out."""
    held = content["held_out"]
    parts = [
        f"Held out, never seen in training: {len(held['cases'])} patients. Volume Dice of the "
        f"packed files on {held['runtime']}:"
    ]
    for name, scores in sorted(held["dice"].items()):
        rows = {**scores["cases"], "**mean**": scores["mean"]}
        lines = [[case, *(f"{v:.3f}" for v in dice.values())] for case, dice in rows.items()]
        parts.append(table((name, *VALUES), lines))
    return parts


def folds(content: dict[str, Any]) -> list[str]:
    """Return the figures of the folds, for a model that was trained on every patient."""
    rows = []
    for name, scores in sorted(content["folds"].items()):
        dice = [
            f"{scores['mean'][key]:.3f} ({scores['interval'][key][0]:.2f}-"
            f"{scores['interval'][key][1]:.2f})"
            for key in VALUES
        ]
        rows.append([name, scores["patients"], *dice])
    return [
        "It has seen every patient at hand, so these very files are scored on none. Networks "
        "trained by the same recipe on three folds and scored on the fourth "
        "([docs/accuracy.md](../../docs/accuracy.md)) have this volume Dice, with its bootstrap "
        "95 % interval:",
        table(("as", "patients", *VALUES), rows),
    ]


if __name__ == "__main__":
    main()
