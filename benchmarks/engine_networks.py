"""The networks that the engines are timed with: the shipped one, and MobileNetV2 as reference."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import mobilenet_baseline
from benchmarks.runtimes import ModelFiles
from convert.export import INPUT, convert_onnx, export_onnx, fold_thresholds
from convert.log_capture import capture_output
from convert.own_model import thresholds_of
from convert.tflite.ops import ops_of
from convert.tflite.reader import read_model
from glioslice.cases import phantom_case
from glioslice.model_card import find_model
from glioslice.preprocessing import slice_volume
from training.checkpoint import load_model
from training.network import count_macs

PHANTOM, EVERY = 0, 8
"""The phantom whose slices are run; every eighth calibrates ONNX Runtime's int8."""

MIN_DICE = 0.95
"""The Dice between masks of two engines, at least. OpenVINO agrees least, and even less on
processors without VNNI: there int8 products are added in pairs that saturate at 16 bits."""


@dataclass(frozen=True, eq=False)
class TimedNetwork:
    """A network in one or more precisions, and the input `sample` (1, H, W, C) for timing.

    `agreement` compares two outputs, channels last; two engines that run this network agree by at
    least `min_agreement`. Times are compared with those of the `reference` network.
    """

    name: str
    models: Mapping[str, ModelFiles]
    sample: NDArray[np.float32]
    macs: int
    agreement: Callable[[NDArray[np.float32], NDArray[np.float32]], float]
    min_agreement: float
    reference: bool = False

    @property
    def sha256(self) -> str:
        """The SHA-256 of the int8 TFLite file."""
        return hashlib.sha256(self.models["int8"].tflite).hexdigest()


def shipped_network() -> TimedNetwork:
    """Return the shipped network: its int8 file, and other files made from its checkpoint."""
    file = find_model()
    network, card = load_model(file.parent)
    slices, _ = slice_volume(phantom_case(PHANTOM).images, card.window, card.clip)
    sample = slices[len(slices) // 2][None]
    final = fold_thresholds(network, thresholds_of(card))
    fp32 = export_onnx(final, (network.config.inputs, *card.window))
    models = {
        # First, because all others must agree with the shipped file.
        "int8": ModelFiles(file.read_bytes(), quantize_onnx(fp32, slices[::EVERY])),
        "fp32": ModelFiles(convert_onnx(fp32, sample)["fp32"], fp32),
    }
    return TimedNetwork(
        card.name, models, sample, count_macs(network, card.window), logit_dice, MIN_DICE
    )


def reference_network() -> TimedNetwork:
    """Return the reference network, in int8 alone."""
    samples, tflite = mobilenet_baseline.samples(), mobilenet_baseline.int8_file()
    model = ModelFiles(tflite, quantize_onnx(mobilenet_baseline.onnx_file(), samples))
    return TimedNetwork(
        mobilenet_baseline.NAME,
        {"int8": model},
        samples[:1],
        sum(op.macs for op in ops_of(read_model(tflite))),
        correlation,
        min_agreement=0.9,
        reference=True,
    )


def quantize_onnx(fp32: bytes, samples: NDArray[np.float32]) -> bytes:
    """Return a float ONNX model of one input, INPUT, with int8 weights and uint8 activations.

    ONNX Runtime's own static quantization, in QDQ form with a scale for each output channel; the
    extremes over `samples` (N, H, W, C) are the ranges. Activations are uint8 because ONNX Runtime
    then computes every convolution in integers; with int8 it leaves some in float on x86-64 and is
    slower. Input and output stay float32.
    """
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch, capture_output():
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        plain, ready, done = (Path(scratch) / f"{name}.onnx" for name in ("plain", "ready", "done"))
        plain.write_bytes(fp32)
        # Folds constants and merges nodes: nodes that remain would be quantized one by one.
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            done,
            _CalibrationReader(samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return done.read_bytes()


class _CalibrationReader:
    """Samples for ONNX Runtime's calibration."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next sample as the network's input, None after the last."""
        for one in self._left:
            return {INPUT: np.ascontiguousarray(one.transpose(2, 0, 1)[None])}
        return None


def logit_dice(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the Dice overlap of the masks, logits above 0, of all regions together."""
    a, b = one > 0, other > 0
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return Pearson's correlation of two outputs."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
