"""Float file to int8 file in two steps, so that ranges can be looked at and changed between them.

TensorFlow's converter does both at once: it calibrates the float file and hands it to its
quantiser. Here the file between the two is in our hands: a float file whose tensors bear a minimum
and a maximum. Left as it is, it becomes byte for byte the file that the converter makes.

Ways to an int8 file, one after the other, until one holds.

1. usual calibration: the extremes over some slices of each case
2. more slices: three times as many, chosen for tumour and for large intensities
3. ranges by error: large values are cut off where that costs less than a coarse step
4. equalised channels: wide channels made small, what takes them made large (skips above all)
5. equalised channels, ranges by error

The slices of 2 serve all that follow. The float network is the same on all rungs.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convert.artifacts import File
from convert.calibration import spread
from convert.log_capture import logged
from convert.quantize.equalization import equalised
from convert.quantize.ranges import by_error
from convert.tflite.reader import read_model
from convert.verify.acceptance import Measure, Verdict
from glioslice.errors import GliosliceError


def calibrated(fp32: bytes, slices: NDArray[np.float32]) -> bytes:
    """Return the float file with the extremes of each tensor over `slices` (N, X, Y, C) in it.

    Raises GliosliceError if an extreme is not finite: the quantiser would make any range of it.
    """
    with logged():
        from tensorflow.lite.python.optimize.calibrator import Calibrator, add_intermediate_tensors

        calibrator = Calibrator(add_intermediate_tensors(fp32))
        content = bytes(calibrator.calibrate(lambda: ([one[np.newaxis]] for one in slices)))
    for tensor in read_model(content).subgraphs[0].tensors:
        known = tensor.quantization is not None and tensor.quantization.min is not None
        if known and not np.isfinite([tensor.quantization.min, tensor.quantization.max]).all():
            raise GliosliceError(
                "the float file computes NaN or infinite values on calibration slices; look for "
                "what overflows in the network, nothing can be quantised"
            )
    return content


def quantised(ranged: bytes) -> bytes:
    """Return the full-integer file of a float file that bears ranges, int8 in and out."""
    with logged():
        import tensorflow as tf
        from tensorflow.lite.python.convert import mlir_quantize

        return bytes(mlir_quantize(ranged, input_data_type=tf.int8, output_data_type=tf.int8))


RUNGS = (
    "usual calibration",
    "more slices",
    "ranges by error",
    "equalised channels",
    "equalised channels, ranges by error",
)

MOST_LOOKED_AT = 96
"""Slices whose every value is looked at, a second each; extremes are taken over all."""

Slices = NDArray[np.float32]


@dataclass(frozen=True)
class Rung:
    """An int8 file, and the float file `fp32` that it was made of."""

    name: str
    fp32: bytes
    int8: bytes


@dataclass(frozen=True)
class Attempt:
    """A rung and what came of it; `verdicts` are those of `files`, by name."""

    rung: Rung
    files: tuple[File, ...]
    verdicts: dict[str, Verdict]
    measure: Measure


def rungs(fp32: bytes, usual: Slices, more: Callable[[], Slices]) -> Iterator[Rung]:
    """Yield the rungs; each is made when it is asked for.

    `usual` and `more()` are slices (N, X, Y, C). Raises GliosliceError if a tool fails.
    """
    yield Rung(RUNGS[0], fp32, quantised(calibrated(fp32, usual)))
    slices = more()
    some = np.stack(spread(list(slices), MOST_LOOKED_AT))
    ranged = calibrated(fp32, slices)
    yield Rung(RUNGS[1], fp32, quantised(ranged))
    yield Rung(RUNGS[2], fp32, quantised(by_error(ranged, some)))
    even = equalised(fp32, some)
    ranged = calibrated(even, slices)
    yield Rung(RUNGS[3], even, quantised(ranged))
    yield Rung(RUNGS[4], even, quantised(by_error(ranged, some)))


def climb(ways: Iterable[Rung], attempt: Callable[[Rung], Attempt]) -> tuple[Attempt, ...]:
    """Return the attempts up to the first that held; all of them if none did."""
    made = []
    for rung in ways:
        made.append(attempt(rung))
        if made[-1].measure.held:
            break
    return tuple(made)
