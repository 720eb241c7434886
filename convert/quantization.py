"""Make an int8 file of a float file, by one quantization strategy after the other until one passes.

1. usual calibration: the extremes over a few slices of each case
2. more slices: three times as many, chosen for tumour and for large intensities
3. ranges by error: large values are clipped where that costs less than a coarse step for all
4. equalised channels: wide channels are scaled down and their consumers up, skips above all
5. equalised channels, ranges by error

Strategies 2 to 5 use the same slices. The float network computes the same in all of them.

TensorFlow's converter calibrates and quantizes in one go. Here these are two steps, so that ranges
can be inspected and changed between them: `calibrate` returns a float file whose tensors carry a
minimum and a maximum, and `quantize` makes the int8 file of it. Without a change between them the
result is byte for byte the converter's own.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convert.artifacts import ModelFile
from convert.calibration import spread
from convert.log_capture import capture_output
from convert.ranges import equalize, fit_ranges
from convert.tflite.reader import read_model
from convert.verify.acceptance import Evaluation, GateResult
from glioslice.errors import GliosliceError

STRATEGIES = (
    "usual calibration",
    "more slices",
    "ranges by error",
    "equalised channels",
    "equalised channels, ranges by error",
)
"""The names in the order of the attempts; `report.json` holds them."""

MAX_INSPECTED = 96
"""Slices of which every value is inspected, a second each; extremes are taken over all slices."""

Slices = NDArray[np.float32]
"""(N, X, Y, C), as the TFLite file takes them one by one."""


@dataclass(frozen=True)
class Int8Candidate:
    """An int8 file, and the float file `fp32` that it was made of, by one of STRATEGIES."""

    strategy: str
    fp32: bytes
    int8: bytes


@dataclass(frozen=True)
class Attempt:
    """A candidate and how it did; `evaluations` are those of `files`, by name."""

    candidate: Int8Candidate
    files: tuple[ModelFile, ...]
    evaluations: dict[str, Evaluation]
    gate: GateResult


def calibrate(fp32: bytes, slices: Slices) -> bytes:
    """Return the float file with the extremes of each tensor over `slices` written into it.

    Raises GliosliceError if an extreme is not finite: no range can be made of it.
    """
    with capture_output():
        from tensorflow.lite.python.optimize.calibrator import Calibrator, add_intermediate_tensors

        calibrator = Calibrator(add_intermediate_tensors(fp32))
        content = bytes(calibrator.calibrate(lambda: ([one[np.newaxis]] for one in slices)))
    for tensor in read_model(content).subgraphs[0].tensors:
        known = tensor.quantization is not None and tensor.quantization.min is not None
        if known and not np.isfinite([tensor.quantization.min, tensor.quantization.max]).all():
            raise GliosliceError(
                "the float file computes NaN or infinite values on calibration slices, so it "
                "cannot be quantized; look for an overflow in the network"
            )
    return content


def quantize_file(calibrated: bytes) -> bytes:
    """Return the full-integer file of a calibrated float file, with int8 input and output."""
    with capture_output():
        import tensorflow as tf
        from tensorflow.lite.python.convert import mlir_quantize

        return bytes(mlir_quantize(calibrated, input_data_type=tf.int8, output_data_type=tf.int8))


def int8_candidates(
    fp32: bytes, usual: Slices, extended: Callable[[], Slices]
) -> Iterator[Int8Candidate]:
    """Yield the candidate of each strategy; it is made when the iterator reaches it.

    `usual` and `extended()` are slices to calibrate on. Raises GliosliceError if a tool fails.
    """
    yield Int8Candidate(STRATEGIES[0], fp32, quantize_file(calibrate(fp32, usual)))
    slices = extended()
    inspected = np.stack(spread(list(slices), MAX_INSPECTED))
    calibrated = calibrate(fp32, slices)
    yield Int8Candidate(STRATEGIES[1], fp32, quantize_file(calibrated))
    yield Int8Candidate(STRATEGIES[2], fp32, quantize_file(fit_ranges(calibrated, inspected)))
    equalized = equalize(fp32, inspected)
    calibrated = calibrate(equalized, slices)
    yield Int8Candidate(STRATEGIES[3], equalized, quantize_file(calibrated))
    yield Int8Candidate(STRATEGIES[4], equalized, quantize_file(fit_ranges(calibrated, inspected)))


def try_candidates(
    candidates: Iterable[Int8Candidate], attempt: Callable[[Int8Candidate], Attempt]
) -> tuple[Attempt, ...]:
    """Return the attempts up to the first that passed; all of them if none did."""
    attempts = []
    for candidate in candidates:
        attempts.append(attempt(candidate))
        if attempts[-1].gate.passed:
            break
    return tuple(attempts)
