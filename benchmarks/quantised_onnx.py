"""An int8 ONNX file by ONNX Runtime's own quantiser, which is what its users would run."""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convert.chatter import logged
from convert.export import INPUT


def quantised_onnx(fp32: bytes, samples: NDArray[np.float32]) -> bytes:
    """Return a float ONNX model of one input, INPUT, with int8 weights and uint8 values.

    Static quantisation in QDQ form with a scale for each output channel; the extremes over
    `samples` (N, H, W, C) become the ranges. Values are uint8 because ONNX Runtime then computes
    every convolution in integers; with int8 values it leaves some in float on x86-64, and is
    slower. Input and output stay float32.
    """
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch, logged():
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        plain, ready, done = (Path(scratch) / f"{name}.onnx" for name in ("plain", "ready", "done"))
        plain.write_bytes(fp32)
        # Folds constants and merges nodes: what is left over would be quantised on its own.
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            done,
            _Samples(samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return done.read_bytes()


class _Samples:
    """What ONNX Runtime's calibration asks for samples until there are none."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next sample as the network's input."""
        for one in self._left:
            return {INPUT: np.ascontiguousarray(one.transpose(2, 0, 1)[None])}
        return None
