"""Make TFLite files of under 60,000 bytes of a trained network, and prove that they are still it.

    python convert/to_tflite.py                                       # both models of models/
    python convert/to_tflite.py runs/compact --data DIR --out build/compact

OUT becomes a model folder with `report.json` and `report.svg`; files to compare with lie in
OUT/compare/. Without --data the ranges are calibrated on phantoms, and judged on others of them.

An int8 file that falls too far below fp32 is made again another way (`convert.ladder`). Where no
way helps it is given up: if another product is left and int8 was not asked for by name, that one is
written, else nothing is and the exit code is 2.
"""

import argparse
from pathlib import Path

from convert.calibration import cast
from convert.conversion import Conversion, Outcome, carry_out
from convert.gate import STANDARD, Limits
from convert.picture import picture
from convert.products import REPORT, check_writable, chosen_precisions, publish
from convert.report import layer_table, report_of, table
from glioslice import command
from glioslice.card import CARD, SHIPPED, Card, shipped
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from training.checkpoint import load_model


def main() -> None:
    """Read the command line and convert."""
    parser = command.parser(
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
        help="of the brain's voxels, where no case has a mask; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--max-bytes", type=int, default=STANDARD.max_bytes, metavar="N",
        help="of a product; default: %(default)s",
    )  # fmt: skip
    command.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Convert as the command line says."""
    limits = Limits(arguments.max_drop, arguments.min_agreement, arguments.max_bytes)
    data, precision = arguments.data, arguments.precision
    if arguments.run is not None:
        convert(arguments.run, data, arguments.out, precision, limits)
        return
    for name in SHIPPED:
        out = (arguments.out or Path("build")) / name
        convert(shipped(name), data, out, precision, limits, compare=True)


def convert(
    run: Path,
    data: Path | None,
    out: Path | None,
    precision: str | None,
    limits: Limits = STANDARD,
    *,
    compare: bool = False,
) -> None:
    """Convert the model folder `run` into `out`, which may be `run` itself.

    `compare` puts the agreement with the files of `run` into the report. Raises GliosliceError if
    anything is not as it must be; products are then as they were before.
    """
    network, card = load_model(run)
    precisions = chosen_precisions(precision, card.name)
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
    conversion = Conversion(network, card, thresholds, precisions, roles, limits, theirs)
    outcome = carry_out(conversion)
    tell(card.name, outcome)
    if outcome.refused and (precision is not None or not outcome.others):
        raise GliosliceError(f"{outcome.refused}; nothing was written")
    drawing = picture(f"{card.name}-int8.tflite", outcome.layers)
    publish(run, out, card, outcome.files, report_of(conversion, outcome), drawing)
    say(card.name, f"wrote {out / REPORT}")


def tell(name: str, outcome: Outcome) -> None:
    """Print the layers, the files and how int8 came through the gate."""
    print(layer_table(outcome.layers))
    print(table(outcome.files, outcome.verdicts), flush=True)
    for attempt in outcome.tried:
        how = "held" if attempt.measure.held else "did not hold"
        say(name, f"int8 by {attempt.rung.name}: {attempt.measure}: {how}")
    if outcome.refused:
        say(name, f"int8 is left out: {outcome.refused}")


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


def say(name: str, what: str) -> None:
    """Print a step of the work."""
    print(f"{name}: {what}", flush=True)


if __name__ == "__main__":
    main()
