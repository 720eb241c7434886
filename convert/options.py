"""The options of `convert/to_tflite.py` for a network that is not ours."""

import argparse
from pathlib import Path

from convert.external_model import Foreign, foreign, from_module, from_onnx, read_examples
from convert.onnx_model import Shape
from convert.verify.acceptance import Limits
from glioslice.errors import GliosliceError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("a network that is not ours")
    group.add_argument("--onnx", type=Path, metavar="FILE", help="one input, one output")
    group.add_argument(
        "--module", metavar="PACKAGE.MODULE:FACTORY", help="a function that makes a torch module"
    )
    group.add_argument(
        "--calibration", type=Path, metavar="FILE",
        help=".npy of images (N, C, H, W) as the network takes them; or .npz of images and masks",
    )  # fmt: skip
    group.add_argument(
        "--input-shape", metavar="1,C,H,W", help="default: the file's, or that of the images"
    )
    group.add_argument(
        "--threshold", type=float, metavar="X", help="outputs above it are yes; default: 0"
    )


def asked_for(arguments: argparse.Namespace, limits: Limits) -> Foreign | None:
    """Return the network that is not ours; None if options ask for one of ours.

    Raises GliosliceError if options do not go together or it cannot be read.
    """
    a = arguments
    if sum(given is not None for given in (a.run, a.onnx, a.module)) > 1:
        raise GliosliceError("RUN, --onnx and --module each name a network; give one of them")
    others = {
        "--calibration": a.calibration,
        "--input-shape": a.input_shape,
        "--threshold": a.threshold,
    }
    if a.onnx is None and a.module is None:
        given = [option for option, value in others.items() if value is not None]
        if given:
            raise GliosliceError(
                f"{given[0]} is for --onnx and --module; cases for a network of this kit: --data"
            )
        return None
    if a.data is not None:
        raise GliosliceError("--data is for networks of this kit; give images as --calibration")
    if a.calibration is None:
        raise GliosliceError("give images as the network takes them: --calibration FILE.npy")
    shape = None if a.input_shape is None else shape_of(a.input_shape)
    examples = read_examples(a.calibration)
    original = (
        from_onnx(a.onnx, shape)
        if a.onnx is not None
        else from_module(a.module, examples.shape if shape is None else shape)
    )
    return foreign(original, examples, a.threshold or 0.0, limits)


def shape_of(text: str) -> Shape:
    """Return channels, rows and columns of "1,C,H,W"; raises GliosliceError if it is none."""
    try:
        batch, channels, rows, columns = (int(part) for part in text.split(","))
    except ValueError:
        batch = channels = rows = columns = 0
    if batch != 1 or min(channels, rows, columns) < 1:
        raise GliosliceError(f"--input-shape {text}: expected 1,CHANNELS,ROWS,COLUMNS")
    return channels, rows, columns
