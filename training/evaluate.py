"""Score a model on cases with ground truth.

    python training/evaluate.py CASE                              # by the shipped compact model
    python training/evaluate.py DIR --model nano --json nano.json
    python training/evaluate.py DIR --model runs/compact          # a checkpoint, which needs torch

DIR is a folder of cases. A case whose images the model was trained on (by their digest) is marked
as seen and left out of the mean. Masks are post-processed by the rules in the model's card, unless
`--raw`. `--json` writes: model, postprocessing (the rules), mean {WT, TC, ET, mean}, cases [{case,
seen, missing, dice {WT, TC, ET, mean}}]. dice is null without a ground truth, mean if no case
counts.

With --lesion-wise a case with a ground truth also has lesion_wise {WT, TC, ET: {dice, hd95, ...}}:
the scores of the official package of the BraTS challenges, `brats-evaluation`. Each connected part
of a region is a lesion. The package pairs those of prediction and ground truth and reports mean
Dice and HD95 of the pairs, and how many lesions were found, missed or invented. Its label numbers
are ours. It is an extra of its own (AGPL-3.0), and nothing else here needs it.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.engine import Engine
from device.segment import SliceNetwork, describe_failure, find_paths, segment
from glioslice import cli
from glioslice.case_options import add_missing_option, add_reading_options, read_source
from glioslice.cases import Case, case_digest, case_name, paths_by_name, read_case
from glioslice.errors import GliosliceError
from glioslice.files import check_file, check_folder, write_json
from glioslice.labels import REGIONS, to_labels, to_scheme
from glioslice.metrics import region_dice
from glioslice.model_card import CARD, Card, find_model, read_card
from glioslice.nifti import write_mask
from glioslice.postprocessing import NO_RULES, postprocess
from glioslice.preprocessing import restore_volume, slice_volume
from glioslice.sanity_checks import case_warnings

logger = logging.getLogger(__name__)

Scores = dict[str, float]

CHECKPOINT = ".safetensors"

BATCH = 8
"""Slices that a checkpoint takes at once: torch is fastest there on one core."""

Labels = NDArray[np.uint8]

RegionScores = dict[str, dict[str, float | None]]
"""For WT, TC and ET: dice and hd95 (mm), None where there is no pair; found, missed, invented; and
volume_dice, the package's own Dice of the whole region, None where both are empty."""

FIELDS = {
    "dice": "sq_dsc", "hd95": "sq_hd95", "found": "tp", "missed": "fn", "invented": "fp",
    "volume_dice": "global_bin_dsc",
}  # fmt: skip
"""What panoptica calls them."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and evaluate."""
    parser = cli.parser(
        "Score a model on cases with ground truth.",
        "glioslice evaluate DIR --model compact",
    )
    parser.add_argument(
        "case", type=Path, nargs="*", metavar="CASE", help="a case or a folder of cases"
    )
    parser.add_argument(
        "--data", "--input", type=Path, action="append", default=[], metavar="CASE",
        help="the same as CASE",
    )  # fmt: skip
    parser.add_argument(
        "--model",
        help="a shipped size, a model or run folder, a .tflite or a .safetensors file; "
        "default: compact",
    )
    parser.add_argument(
        "--raw", action="store_true", help="score the masks as the network gives them"
    )
    add_missing_option(parser)
    add_reading_options(parser)
    parser.add_argument("--masks", type=Path, metavar="DIR", help="write the masks as NIfTI here")
    parser.add_argument("--force", action="store_true", help="overwrite existing masks")
    parser.add_argument(
        "--lesion-wise", action="store_true",
        help="also score each lesion, by the official package of the challenge (extra: brats)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores here")
    cli.run(evaluate, parser.parse_args(argv))


def evaluate(arguments: argparse.Namespace) -> None:
    """Score the cases, print the table, and write the files that the options name."""
    folders = [*arguments.case, *arguments.data]
    if not folders:
        raise GliosliceError("no case given: add a case or a folder of cases")
    lesion_wise = lesion_wise_scorer() if arguments.lesion_wise else None
    file, network = load_network(arguments.model)
    cases = find_paths(folders, arguments.masks)
    check_outputs(cases, arguments)
    rows, failed = [], []
    print(f"{'case':30} {'WT':>6} {'TC':>6} {'ET':>6} {'mean':>6}", flush=True)
    for number, path in enumerate(cases, 1):
        counted = f" ({number} of {len(cases)})" if len(cases) > 1 else ""
        try:
            case, labels = _segment_one(path, network, arguments, counted)
        except Exception as error:  # one case never ends the evaluation of the others
            if len(cases) == 1 or arguments.debug:
                raise
            failed.append(case_name(path))
            print(f"error: {describe_failure(path, error)}", file=sys.stderr, flush=True)
            continue
        if arguments.masks:
            mask = mask_path(arguments.masks, case.name)
            write_mask(mask, to_scheme(labels, case.scheme), case.space)
        rows.append(evaluate_case(case, labels, network.card))
        if case.missing:
            rows[-1]["seen"] = was_seen(path, network.card)
        failed += [case.name] if case.mask_problem else []
        print(format_row(rows[-1]), flush=True)
        if lesion_wise is not None and case.labels is not None:
            rows[-1]["lesion_wise"] = lesion_wise(labels, case.labels)
            print(format_lesion_wise(rows[-1]["lesion_wise"]), flush=True)
    print(format_mean(mean_dice(rows)))
    if arguments.json:
        write_json(arguments.json, scores_json(file, network.card, rows, raw=arguments.raw))
    if failed:
        raise GliosliceError(
            f"{len(failed)} of {len(cases)} cases were not scored: {', '.join(failed)}; the others "
            "were"
        )


def _segment_one(
    path: Path, network: SliceNetwork, arguments: argparse.Namespace, counted: str
) -> tuple[Case, NDArray[np.uint8]]:
    """Return a case and its labels; log the warnings about it."""
    case = read_source(path, arguments)
    for warning in case_warnings(case):
        logger.warning("%s: %s", case.name, warning)
    title = f"segmenting {case.name}{counted}"
    return case, predict_labels(case.images, network, title, raw=arguments.raw)


def check_outputs(cases: Sequence[Path], arguments: argparse.Namespace) -> None:
    """Check before the first case that all files can be written.

    Raises GliosliceError for a folder that takes no file, a mask that exists, unless `--force`, and
    two cases with one mask.
    """
    if arguments.json:
        check_file(arguments.json)
    if not arguments.masks:
        return
    check_folder(arguments.masks)
    for name in paths_by_name((case_name(path), path) for path in cases):
        mask = mask_path(arguments.masks, name)
        if mask.exists() and not arguments.force:
            raise GliosliceError(
                f"{mask}: already exists; move it, name another --masks, or add --force"
            )


def mask_path(folder: Path, name: str) -> Path:
    """Return where the mask of a case goes."""
    return folder / f"{name}-mask.nii.gz"


def scores_json(file: Path, card: Card, rows: list[dict[str, Any]], *, raw: bool) -> dict[str, Any]:
    """Return what `--json` writes."""
    rules = asdict(NO_RULES if raw else card.rules)
    return {"model": file.name, "postprocessing": rules, "cases": rows, "mean": mean_dice(rows)}


def predict_labels(
    images: NDArray[np.float32], network: SliceNetwork, progress: str, *, raw: bool = False
) -> NDArray[np.uint8]:
    """Return the labels (X, Y, Z) of images (4, X, Y, Z); a checkpoint takes slices in batches.

    `progress` is the title of the progress bar. The card's rules are applied unless `raw`. Raises
    GliosliceError as `segment` does.
    """
    run_batch = getattr(network, "run_batch", None)
    if run_batch is None:
        return segment(images, network, progress, raw=raw).labels
    slices, crop = slice_volume(images, network.card.window, network.card.clip)
    starts = range(0, len(slices), BATCH)
    masks = [
        to_labels(np.moveaxis(run_batch(slices[start : start + BATCH]), 1, 0))
        for start in cli.track(starts, progress)
    ]
    labels = restore_volume(np.concatenate(masks), crop)
    rules = network.card.rules
    return labels if raw or not rules else postprocess(labels, rules).labels


def load_network(model: str | Path | None) -> tuple[Path, SliceNetwork]:
    """Return the file that `model` names and the network in it.

    A run folder, which has no TFLite file, and a .safetensors file are checkpoints; everything else
    is resolved by `find_model`. Raises GliosliceError if the file is missing or refused.
    """
    path = Path(model) if model is not None else None
    if path is not None and (path / CARD).is_file() and not any(path.glob("*.tflite")):
        path /= f"{read_card(path).name}{CHECKPOINT}"
    if path is None or path.suffix != CHECKPOINT:
        path = find_model(model)
        return path, Engine(path)
    try:  # imported here, so that TFLite files can be scored without torch
        from training.checkpoint import load_checkpoint
        from training.network import TorchNetwork
    except ImportError:
        raise GliosliceError(f"{path}: a checkpoint needs torch; install the extra train") from None
    return path, TorchNetwork(*load_checkpoint(path))


def evaluate_case(case: Case, labels: NDArray[np.uint8], card: Card) -> dict[str, Any]:
    """Return the row of a case; `dice` is None without a ground truth."""
    dice = None if case.labels is None else region_dice(labels, case.labels)
    seen = case_digest(case) in card.trained_on
    return {"case": case.name, "seen": seen, "missing": list(case.missing), "dice": dice}


def was_seen(path: Path, card: Card) -> bool:
    """Return whether a model was trained on a case that is scored without some of its modalities.

    Its digest is that of all its images; where one is not there, nobody knows.
    """
    try:
        return case_digest(read_case(path)) in card.trained_on
    except GliosliceError as error:
        logger.warning("%s: it is unknown whether the model has seen it: %s", path, error)
        return False


def mean_dice(rows: list[dict[str, Any]]) -> Scores | None:
    """Return the mean over scored cases that were not seen in training, None if there are none."""
    scored = [row["dice"] for row in rows if row["dice"] is not None and not row["seen"]]
    if not scored:
        return None
    return {name: sum(d[name] for d in scored) / len(scored) for name in scored[0]}


def format_mean(mean: Scores | None) -> str:
    """Return the last row of the printed table."""
    if mean is None:
        return "no mean: every case lacks a ground truth or was seen in training"
    return format_row({"case": "mean of unseen cases", "seen": False, "dice": mean})


def format_row(row: dict[str, Any]) -> str:
    """Return a row of the printed table."""
    if row["dice"] is None:
        return f"{row['case']:30} not scored: no ground truth that can be used"
    numbers = " ".join(f"{value:6.3f}" for value in row["dice"].values())
    return f"{row['case']:30} {numbers}{'  seen in training' if row['seen'] else ''}"


def lesion_wise_scorer() -> Callable[[Labels, Labels], RegionScores]:
    """Return a function that scores predicted labels (X, Y, Z) against true ones, at 1 mm.

    Raises GliosliceError if the package is not installed.
    """
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings(action="ignore"):
            import brats_evaluation
            from panoptica import Panoptica_Evaluator
            from panoptica.utils.citation_reminder import disable_citation_reminder

            disable_citation_reminder()  # docs/accuracy.md cites it
            config = str(brats_evaluation.config_path("gli"))
            evaluator: Any = Panoptica_Evaluator.load_from_config(config)
    except ImportError as error:
        raise GliosliceError(
            f"--lesion-wise needs the package brats-evaluation ({error}): pip install "
            "'glioslice[brats]'"
        ) from None

    def score(labels: Labels, truth: Labels) -> RegionScores:
        with redirect_stdout(StringIO()), warnings.catch_warnings(action="ignore"):
            results = evaluator.evaluate(labels, truth)
            of = {region: results[region.lower()].to_dict(True) for region in REGIONS}
        return {
            region: {name: _number(of[region].get(key)) for name, key in FIELDS.items()}
            for region in REGIONS
        }

    return score


def _number(value: Any) -> float | None:
    """Return a finite number; nan and inf, which JSON lacks, mean that there is no pair."""
    return float(value) if value is not None and isfinite(value) else None


def format_lesion_wise(scores: RegionScores) -> str:
    """Return the scores of a case as one line for each region."""
    return "\n".join(
        f"  {region} lesion-wise: Dice {_text(of['dice'], 3)}, HD95 {_text(of['hd95'], 1)} mm; "
        f"{of['found']:.0f} found, {of['missed']:.0f} missed, {of['invented']:.0f} invented"
        for region, of in scores.items()
    )


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
