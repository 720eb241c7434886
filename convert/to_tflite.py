"""From a source to what is printed and written: the way that every conversion takes.

Make TFLite files of under 60,000 bytes of a trained network, and prove that they are still it.

    python convert/to_tflite.py                                       # both models of models/
    python convert/to_tflite.py runs/compact --data DIR --out build/compact
    python convert/to_tflite.py runs/compact --target pi,micro        # and is int8 fit for a board?
    python convert/to_tflite.py --onnx net.onnx --calibration images.npy      # a network not ours
    python convert/to_tflite.py --module mine.net:build --calibration images.npz

OUT becomes a model folder with `report.json` and `report.svg`; files to compare with lie in
OUT/compare/. Without --data the ranges are calibrated on phantoms, and judged on others of them.

An int8 file that falls too far below fp32 is made again another way (`convert.quantize.strategies`). Where no
way helps it is given up: if another product is left and int8 was not asked for by name, that one is
written, else nothing is and the exit code is 2. So it is where the int8 file does not suit a board
that was asked for (`convert.targets`).
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from convert.artifacts import (
    PICTURE,
    REPORT,
    File,
    check_writable,
    chosen_precisions,
    publish,
    write_files,
)
from convert.calibration import cast
from convert.external_model import SPLIT, Foreign
from convert.options import add_options, asked_for
from convert.own_model import Trained
from convert.pipeline import Conversion, Outcome, carry_out
from convert.report import layer_table, picture, report_of, table
from convert.targets import TARGETS, chosen_targets
from convert.targets.result import Outcome as Suited
from convert.verify.acceptance import STANDARD, Limits
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.model_card import CARD, SHIPPED, Card, shipped
from training.checkpoint import load_model

Write = Callable[[Sequence[File], dict[str, Any], Mapping[str, bytes]], None]
"""Writes files, their report and what was made beside them, by name."""


def deliver(conversion: Conversion, targets: Sequence[str], write: Write) -> None:
    """Convert, print what came of it, and hand it to `write`.

    Raises GliosliceError if no product may be written, or the int8 file does not suit a target.
    """
    name = conversion.source.name
    outcome = carry_out(conversion)
    tell(name, outcome)
    if outcome.refused:
        raise GliosliceError(f"{outcome.refused}; nothing was written")
    suited = suits(outcome, targets)
    beside = {key: content for of in suited for key, content in of.files.items()}
    if outcome.layers:
        beside[PICTURE] = picture(f"{name}-int8.tflite", outcome.layers)
    write(outcome.files, report_of(conversion, outcome, suited), beside)


def tell(name: str, outcome: Outcome) -> None:
    """Print the layers, the files and how int8 came through the gate."""
    if outcome.layers:
        print(layer_table(outcome.layers))
    else:
        say(name, f"no table of layers: {outcome.unmeasured}")
    print(table(outcome.files, outcome.verdicts), flush=True)
    for attempt in outcome.tried:
        how = "held" if attempt.measure.held else "did not hold"
        say(name, f"int8 by {attempt.rung.name}: {attempt.measure}: {how}")
    if outcome.left_out:
        say(name, f"int8 is left out: {outcome.left_out}")


def suits(outcome: Outcome, targets: Sequence[str]) -> tuple[Suited, ...]:
    """Check the int8 product for each target and print what was found.

    Raises GliosliceError naming the ops of a file that does not suit one, and how to mend it.
    """
    [file] = [file for file in outcome.files if file.precision == "int8"]
    found = []
    for target in targets:
        found.append(TARGETS[target](file.content, file.name.removesuffix(".tflite")))
        print(found[-1].table, flush=True)
    against = [f"{of.target}: {of.against}" for of in found if not of.ok]
    if against:
        raise GliosliceError(f"{file.name} does not suit {'; '.join(against)}; nothing was written")
    return tuple(found)


def say(name: str, what: str) -> None:
    """Print a step of the work."""
    print(f"{name}: {what}", flush=True)


def main() -> None:
    """Read the command line and convert."""
    parser = cli.parser(
        "Convert a trained network to packed int8 and fp16 TFLite files under 60,000 bytes.",
        "python convert/to_tflite.py runs/compact --data DIR --out build/compact",
    )
    parser.add_argument(
        "run", nargs="?", type=Path, metavar="RUN", help="a model folder; default: those shipped"
    )
    parser.add_argument("--data", type=Path, help="cases to calibrate on; default: phantoms")
    parser.add_argument("--out", type=Path, help="default: build/<name>")
    parser.add_argument("--precision", help="products: int8, fp16 or both with a comma between")
    parser.add_argument(
        "--max-drop", type=float, default=STANDARD.max_drop, metavar="DICE",
        help="how far a product's mean Dice may fall below fp32; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--min-agreement", type=float, default=STANDARD.min_agreement, metavar="SHARE",
        help="of the brain's voxels (or of pixels), where there are no masks; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--max-bytes", type=int, default=STANDARD.max_bytes, metavar="N",
        help="of a product; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--target", action="append", default=[], metavar="NAME",
        help=f"a board that the int8 file must suit: {', '.join(TARGETS)}; several with commas",
    )  # fmt: skip
    add_options(parser)
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Convert as the command line says."""
    limits = Limits(arguments.max_drop, arguments.min_agreement, arguments.max_bytes)
    targets = chosen_targets(arguments.target)
    data, precision = arguments.data, arguments.precision
    source = asked_for(arguments, limits)
    if source is not None:
        convert_foreign(source, arguments.out, precision, limits, targets)
        return
    if arguments.run is not None:
        convert(arguments.run, data, arguments.out, precision, limits, targets)
        return
    for name in SHIPPED:
        out = (arguments.out or Path("build")) / name
        convert(shipped(name), data, out, precision, limits, targets, compare=True)


def convert(
    run: Path,
    data: Path | None,
    out: Path | None,
    precision: str | None,
    limits: Limits = STANDARD,
    targets: Sequence[str] = (),
    *,
    compare: bool = False,
) -> None:
    """Convert the model folder `run` into `out`, which may be `run` itself.

    `compare` puts the agreement with the files of `run` into the report. Raises GliosliceError if
    anything is not as it must be; products are then as they were before.
    """
    network, card = load_model(run)
    precisions = chosen_precisions(precision, card.name, targets)
    thresholds = thresholds_of(card)
    out = Path("build") / card.name if out is None else out
    check_writable(out)
    roles = cast(data, card.window, card.clip, card.trained_on)
    what = "phantoms" if data is None else f"cases of {data}"
    say(card.name, f"calibrating on {len(roles.calibrated)} {what}, judging on "
        f"{len(roles.judged)} {roles.judged_on['what']}")  # fmt: skip
    theirs = {
        path.name: path
        for path in (run / f"{card.name}-{p}.tflite" for p in ("int8", "fp16", "fp32"))
        if compare and path.is_file()
    }
    source = Trained(network, card, thresholds, roles, theirs)
    conversion = Conversion(source, precisions, limits, bool(precision or targets))
    deliver(conversion, targets, partial(publish, run, out, card))
    say(card.name, f"wrote {out / REPORT}")


def convert_foreign(
    source: Foreign,
    out: Path | None,
    precision: str | None,
    limits: Limits = STANDARD,
    targets: Sequence[str] = (),
) -> None:
    """Convert a network that is not ours into `out`, without a card.

    Raises GliosliceError if anything is not as it must be; nothing is written then.
    """
    name = source.name
    precisions = chosen_precisions(precision, "", targets)
    out = Path("build") / name if out is None else out
    check_writable(out)
    gated = "agreement with the network" if source.examples.masks is None else "Dice"
    say(name, f"calibrating on {len(source.calibration())} images of {source.examples.name}, "
        f"judging on {len(source.wanted)} others ({SPLIT}) by {gated}")  # fmt: skip
    for note in source.notes:
        say(name, f"known: {note}")
    conversion = Conversion(source, precisions, limits, bool(precision or targets))
    deliver(conversion, targets, partial(write_files, out))
    say(name, f"wrote {out / REPORT}")


def thresholds_of(card: Card) -> tuple[float, ...]:
    """Return the card's thresholds in the order of REGIONS."""
    try:
        thresholds = card.content["output"]["thresholds"]
        return tuple(float(thresholds[region]) for region in REGIONS)
    except (KeyError, TypeError, ValueError):
        raise GliosliceError(
            f"{CARD} of {card.name}: output.thresholds must hold a number for each of "
            f"{', '.join(REGIONS)}"
        ) from None


if __name__ == "__main__":
    main()
