"""Make TFLite files of under 60,000 bytes of a trained network, and say what they are worth.

    python convert/to_tflite.py                                       # both models of models/
    python convert/to_tflite.py runs/compact --data DIR --out build/compact

OUT becomes a model folder with `report.json`; files to compare with lie in OUT/compare/. Without
--data the ranges are calibrated on phantoms, and judged on others of them.
"""

import argparse
import tempfile
from pathlib import Path

from convert.calibration import calibration, cast
from convert.export import export, with_thresholds
from convert.graph import check_graph
from convert.judging import judge
from convert.products import (
    REPORT,
    check_writable,
    chosen_precisions,
    packed,
    publish,
    stage,
)
from convert.report import report_of, table
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
    command.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Convert as the command line says."""
    if arguments.run is not None:
        convert(arguments.run, arguments.data, arguments.out, arguments.precision)
        return
    for name in SHIPPED:
        out = (arguments.out or Path("build")) / name
        convert(shipped(name), arguments.data, out, arguments.precision, compare=True)


def convert(
    run: Path, data: Path | None, out: Path | None, precision: str | None, *, compare: bool = False
) -> None:
    """Convert the model folder `run` into `out`, which may be `run` itself.

    `compare` puts the agreement with the files of `run` into the report. Raises GliosliceError if
    anything is not as it must be; products are then as they were before.
    """
    network, card = load_model(run)
    precisions = chosen_precisions(precision, card.name)
    out = Path("build") / card.name if out is None else out
    check_writable(out)
    roles = cast(data, card.window, card.clip, card.trained_on)
    slices = calibration(roles.calibrated, card.clip)
    say(card.name, f"calibrating on {len(slices)} slices of {len(roles.calibrated)} {kind(data)}")
    final = with_thresholds(network, thresholds_of(card))
    files = packed(card.name, export(final, card.window, slices), precisions)
    for file in files:
        check_graph(file.content, file.precision, card.window, network.config.inputs)
    say(card.name, f"judging {len(files)} files on {len(roles.judged)} {roles.judged_on['what']}")
    theirs = {f.name: run / f.name for f in files if compare and (run / f.name).is_file()}
    with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:
        staged = stage(Path(folder), card, files)
        verdicts = judge(staged, theirs, network, card, roles.judged)
    report = report_of(network, card, files, verdicts, roles)
    publish(run, out, card, files, report)
    print(table(files, verdicts), flush=True)
    say(card.name, f"wrote {out / REPORT}")


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


def kind(data: Path | None) -> str:
    """Return what is calibrated on."""
    return "phantoms" if data is None else f"cases of {data}"


def say(name: str, what: str) -> None:
    """Print a step of the work."""
    print(f"{name}: {what}", flush=True)


if __name__ == "__main__":
    main()
