"""Write a shipped model's Dice on unseen patients into its card, and the README.md beside it.

    python tools/cards.py models/compact --data ../shared/data/brats
    python tools/cards.py models/compact --mirroring on --rules standard     # how masks are made

A model that held out patients is scored on them (`held_out.dice`). One that was trained on all
patients is never scored on those it has seen: its card quotes the four folds (`folds`), whose
networks were trained with the same configuration. `--mirroring` and `--rules` set how masks are
made, before conversion and goldens, and leave the figures as they are.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmarks.accuracy import VALUES, interval, mean, pooled_scores
from benchmarks.folds import FOLDS, FoldRun, patients
from benchmarks.pages import table
from benchmarks.scores import MIRRORED, RAW, RULES
from device.engine import Engine
from device.segment import segment
from glioslice import cli
from glioslice.cases import case_digest, find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes, write_json
from glioslice.model_card import CARD, read_card
from glioslice.postprocessing import NO_RULES, STANDARD_RULES, PostprocessingRules
from training.config import TrainingConfig
from training.evaluate import evaluate_case, mean_dice

TFLITE, README = ".tflite", "README.md"
RULE_SETS = {"standard": STANDARD_RULES, "none": NO_RULES}


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and write the cards."""
    parser = cli.parser(
        "Write a model's Dice on unseen patients into its card.",
        "python tools/cards.py models/compact --data ../shared/data/brats",
    )
    parser.add_argument("folder", type=Path, metavar="MODEL", help="a model folder")
    parser.add_argument("--data", type=Path, help="cases, for a model that held out patients")
    parser.add_argument(
        "--mirroring", choices=("on", "off"), help="whether boards average mirrored slices"
    )
    parser.add_argument(
        "--rules", choices=tuple(RULE_SETS), help="the rules of post-processing of whole volumes"
    )
    cli.run(write_card, parser.parse_args(argv))


def write_card(arguments: argparse.Namespace) -> None:
    """Write the card's figures, and its README.md."""
    folder: Path = arguments.folder
    content = read_card(folder).content
    if arguments.mirroring or arguments.rules:
        set_masks(content["output"], arguments.mirroring, arguments.rules)
        write_json(folder / CARD, content)
        if content["held_out"]["cases"] or "folds" in content:  # else its figures are to be made
            write_bytes(folder / README, make_readme(content).encode())
        print(f"{folder / CARD}: {describe_masks(content['output'])}")
        return
    if not content["held_out"]["cases"]:
        content["folds"] = quote_folds(content)
    elif arguments.data:
        content["held_out"] |= score_held_out(folder, content, arguments.data)
    else:
        raise GliosliceError(f"{folder}: held out patients; name their folder with --data")
    write_json(folder / CARD, content)
    write_bytes(folder / README, make_readme(content).encode())
    print(f"{folder / CARD} and its README.md are written")


def set_masks(output: dict[str, Any], mirroring: str | None, rules: str | None) -> None:
    """Set how masks are made; None leaves a setting as it is."""
    if mirroring:
        output["mirroring"] = mirroring == "on"
    if rules:
        output["postprocessing"] = asdict(RULE_SETS[rules])


def describe_masks(output: dict[str, Any]) -> str:
    """Return how masks are made, in one line."""
    rules = PostprocessingRules(**output.get("postprocessing", {}))
    parts = ["each slice averaged with its mirror image"] if output.get("mirroring") else []
    if rules.smallest_part:
        parts.append(f"parts under {rules.smallest_part:.0%} of the largest removed")
    if rules.smallest_enhancing:
        limit = rules.smallest_enhancing
        parts.append(f"an enhancing tumour of fewer than {limit} voxels counted as core")
    return "; ".join(parts) or "as the network gives them"


def way_of(output: dict[str, Any]) -> str:
    """Return under which name the folds' scores have masks that are made like this."""
    rules = PostprocessingRules(**output.get("postprocessing", {}))
    if rules not in RULE_SETS.values():
        raise GliosliceError(f"the folds are not scored with {rules}")
    names = [MIRRORED] * bool(output.get("mirroring")) + [RULES] * bool(rules)
    return ", ".join(names) or RAW


def quote_folds(content: dict[str, Any]) -> dict[str, Any]:
    """Return the folds' figures for the files of a model: mean Dice and its interval.

    Raises GliosliceError if a fold was not scored, or was trained with another configuration.
    """
    figures = {}
    first = trainings(content)[0]  # the folds were not fine-tuned
    for fold in FOLDS:
        run = FoldRun(content["name"], fold)
        training = read_card(run.folder).content["training"]
        for field in fields(TrainingConfig):
            theirs, mine = training.get(field.name), first.get(field.name)
            if theirs != mine:
                raise GliosliceError(
                    f"{run.name}: was trained with {field.name} {theirs}, the model with {mine}; "
                    "its card cannot quote it"
                )
    for name, entry in content["files"].items():
        if name.endswith(TFLITE):
            way = way_of(content["output"]) if entry["precision"] == "int8" else RAW
            scores = pooled_scores(content["name"], entry["precision"], way)
            if len(scores) != len(patients()):
                raise GliosliceError(f"{name}: its folds have not been scored; make folds first")
            figures[name] = {
                "patients": len(scores),
                **({"masks": way} if way != RAW else {}),
                "mean": {key: round(mean(scores, value), 4) for key, value in VALUES.items()},
                "interval": {
                    key: [round(end, 3) for end in interval(scores, value)]
                    for key, value in VALUES.items()
                },
            }
    return figures


def score_held_out(folder: Path, content: dict[str, Any], data: Path) -> dict[str, Any]:
    """Return the Dice of a model's files on the patients that it held out.

    Raises GliosliceError if one is missing in `data` or has other images.
    """
    held_out = {entry["digest"]: entry["case"] for entry in content["held_out"]["cases"]}
    files = [name for name in sorted(content["files"]) if name.endswith(TFLITE)]
    engines = [Engine(folder / name) for name in files]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
    for case_files in find_cases(data):
        if case_files.name not in held_out.values():
            continue
        case = read_case(case_files)
        if case_digest(case) not in held_out:
            raise GliosliceError(f"{case.name}: its images differ from those that were held out")
        for name, engine in zip(files, engines, strict=True):
            labels = segment(case.images, engine).labels
            rows[name].append(evaluate_case(case, labels, engine.card))
    if missing := set(held_out.values()) - {row["case"] for row in rows[files[0]]}:
        raise GliosliceError(f"{data}: lacks the held-out {', '.join(sorted(missing))}")
    dice = {
        name: {"mean": mean_dice(scores), "cases": {r["case"]: r["dice"] for r in scores}}
        for name, scores in rows.items()
    }
    return {"dice": dice, "runtime": engines[0].runtime}


def unseen_dice(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for each file the mean Dice on unseen patients, and their number."""
    if content["held_out"]["cases"]:
        return {
            name: {"mean": scores["mean"], "patients": len(scores["cases"])}
            for name, scores in content["held_out"]["dice"].items()
        }
    folds: dict[str, dict[str, Any]] = content["folds"]
    return folds


def make_readme(content: dict[str, Any]) -> str:
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
        "multiply-accumulate operations per slice of "
        f"{' x '.join(map(str, content['input']['window']))} pixels; channels per level: "
        f"{', '.join(map(str, network['widths']))}.",
        table(("file", "precision", "bytes", "sha256"), files),
        *masks_section(content["output"]),
        *training_section(content),
        *(held_out_section(content) if content["held_out"]["cases"] else folds_section(content)),
        "## Data",
        "Cases that it was trained on, with the SHA-256 of their images:",
        table(
            ("case", "digest"), [[c["case"], f"`{c['digest'][:16]}`"] for c in training["cases"]]
        ),
        "## Licence and credits",
        content["licence"],
        "\n".join(f"- {credit}" for credit in content["credits"]),
    ]
    return "\n\n".join(parts) + "\n"


def masks_section(output: dict[str, Any]) -> list[str]:
    """Return how masks are made, if the card says so."""
    if not output.keys() & {"mirroring", "postprocessing"}:
        return []
    return [f"Masks: {describe_masks(output)} ([docs/accuracy.md](../../docs/accuracy.md))."]


def trainings(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of all trainings of a model, the oldest first."""
    return [*content.get("earlier_training", []), content["training"]]


def training_section(content: dict[str, Any]) -> list[str]:
    """Return what a model was trained and, if it was, fine-tuned on."""
    first, *later = trainings(content)
    paragraphs = [
        f"Trained on {len(content['training']['cases'])} patients, {first['epochs']} epochs of "
        f"{first['steps']} batches of {first['batch']}, seed {first['seed']}"
        f"{extra_data_phrase(first)}."
    ]
    for settings in later:
        paragraphs.append(
            f"Then fine-tuned{extra_data_phrase(settings)}, for "
            f"{settings['epochs'] * settings['steps']} batches of {settings['batch']} at a peak "
            f"rate of {settings['rate']:g}; the networks of the folds were not "
            "([docs/training.md](../../docs/training.md#shipped-models))."
        )
    return paragraphs


def extra_data_phrase(training: dict[str, Any]) -> str:
    """Return a phrase about what was trained on besides whole volumes."""
    parts = [
        f"{what} of {training[key]['patients']} patients"
        for key, what in (("cubes", "lesion cubes"), ("single_slices", "single slices"))
        if training.get(key)
    ]
    if training.get("phantoms"):
        parts.append(f"{training['phantoms']} phantoms, most of them healthy")
    *others, last = parts or [""]
    return f", with {', '.join(others)}{' and ' * bool(others)}{last}" if parts else ""


def held_out_section(content: dict[str, Any]) -> list[str]:
    """Return the figures of a model that held out patients."""
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


def folds_section(content: dict[str, Any]) -> list[str]:
    """Return the figures of the folds, for a model that was trained on every patient."""
    rows = []
    for name, scores in sorted(content["folds"].items()):
        dice = [
            f"{scores['mean'][key]:.3f} ({scores['interval'][key][0]:.2f}-"
            f"{scores['interval'][key][1]:.2f})"
            for key in VALUES
        ]
        label = f"{name}, masks {scores['masks']}" if "masks" in scores else name
        rows.append([label, scores["patients"], *dice])
    return [
        "It was trained on every patient, so there are none left to score these files on. Networks "
        "that were trained with the same configuration on three folds and scored on the fourth "
        "([docs/accuracy.md](../../docs/accuracy.md)) have this volume Dice, with its bootstrap "
        "95 % interval:",
        table(("as", "patients", *VALUES), rows),
    ]


if __name__ == "__main__":
    main()
