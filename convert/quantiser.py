"""Float file to int8 file in two steps, so that ranges can be looked at and changed between them.

TensorFlow's converter does both at once: it calibrates the float file and hands it to its
quantiser. Here the file between the two is in our hands: a float file whose tensors bear a minimum
and a maximum. Left as it is, it becomes byte for byte the file that the converter makes.
"""

import numpy as np
from numpy.typing import NDArray

from convert.chatter import logged
from convert.reading import read_model
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
