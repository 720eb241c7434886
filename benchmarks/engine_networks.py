"""What the engines are timed with: the shipped network, and MobileNetV2 to compare it with."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks import mobilenet_baseline
from benchmarks.runtimes import Model, quantised_onnx
from convert.export import float_files_of, onnx_of, with_thresholds
from convert.tflite.ops import ops_of
from convert.tflite.reader import read_model
from convert.to_tflite import thresholds_of
from device.segment import slices_of
from glioslice.cases import phantom_case
from glioslice.model_card import default_model
from training.checkpoint import load_model
from training.network import macs

PHANTOM, EVERY = 0, 8
"""Whose slices are run, and every which calibrates ONNX Runtime's int8."""

LEAST_DICE = 0.95
"""Of the shipped network's masks on two engines. OpenVINO is the furthest off, and on processors
without VNNI further yet: there int8 products are added in pairs that saturate at 16 bits."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network in one or more precisions and the input (1, H, W, C) that it is timed with.

    `sha256` is of its int8 TFLite file. `agreement` compares two outputs, channels last, and is at
    least `least` where both are this network's. `reference` is what others are compared with.
    """

    name: str
    models: Mapping[str, Model]
    given: NDArray[np.float32]
    macs: int
    agreement: Callable[[NDArray[np.float32], NDArray[np.float32]], float]
    least: float
    reference: bool = False

    @property
    def sha256(self) -> str:
        """Of the int8 file that LiteRT runs."""
        return hashlib.sha256(self.models["int8"].tflite).hexdigest()


def ours() -> Network:
    """Return the shipped network: its int8 file as it is, the others made of its checkpoint."""
    file = default_model()
    network, card = load_model(file.parent)
    slices, _ = slices_of(phantom_case(PHANTOM).images, card)
    given = slices[len(slices) // 2][None]
    final = with_thresholds(network, thresholds_of(card))
    fp32 = onnx_of(final, (network.config.inputs, *card.window))
    models = {
        # First, because the others must agree with what is shipped.
        "int8": Model(file.read_bytes(), quantised_onnx(fp32, slices[::EVERY])),
        "fp32": Model(float_files_of(fp32, given)["fp32"], fp32),
    }
    return Network(card.name, models, given, macs(network, card.window), dice, LEAST_DICE)


def mobilenet() -> Network:
    """Return the reference network, in int8 alone."""
    samples, tflite = mobilenet_baseline.samples(), mobilenet_baseline.int8_file()
    model = Model(tflite, quantised_onnx(mobilenet_baseline.onnx_file(), samples))
    return Network(
        mobilenet_baseline.NAME,
        {"int8": model},
        samples[:1],
        sum(op.macs for op in ops_of(read_model(tflite))),
        correlation,
        least=0.9,
        reference=True,
    )


def dice(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the Dice overlap of the masks, logits above 0, of all regions together."""
    a, b = one > 0, other > 0
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return Pearson's correlation of two outputs."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
