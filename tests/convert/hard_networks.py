"""Networks that usual calibration does not quantize well, and one with an unsupported layer."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convert.tflite.interpreter import tensor_values
from tests.convert.conftest import random_network
from tests.convert.float_files import FloatFile
from training.network import NetworkConfig, UNet

Slices = NDArray[np.float32]
SIDE = 64


def slices(count: int, seed: int = 0, reach: float = 1.0) -> Slices:
    rng = np.random.default_rng(seed)
    return (reach * rng.uniform(-1, 1, (count, SIDE, SIDE, 4))).astype(np.float32)


def plain() -> bytes:
    """Sixteen mixtures of the modalities, all of which the mask needs: quantizes well."""
    made, rng = FloatFile((SIDE, SIDE, 4)), np.random.default_rng(0)
    x = made.conv(made.input, rng.normal(0, 1, (16, 1, 1, 4)), np.full(16, 1.0))
    head = np.abs(rng.normal(0, 1, (1, 1, 1, 16)))
    return made.file(made.conv(x, head, [-16.0], relu=False))


def spiky() -> bytes:
    """One channel has a spike where the second modality is bright; the mask hardly needs it."""
    made, rng = FloatFile((SIDE, SIDE, 4)), np.random.default_rng(0)
    weights = rng.normal(0, 1, (16, 1, 1, 4))
    weights[:, 0, 0, 1], weights[0, 0, 0, 1] = 0, 20
    head = np.abs(rng.normal(0, 1, (1, 1, 1, 16)))
    head[..., 0] = 0.001
    x = made.conv(made.input, weights, np.full(16, 1.0))
    return made.file(made.conv(x, head, [-12.0], relu=False))


def skipping(factor: float) -> tuple[bytes, dict[int, str]]:
    """A skip whose first channel is `factor` times too wide and read with 1 / factor.

    The function is the same for every factor. The names of its tensors are returned too.
    """
    made, rng = FloatFile((SIDE, SIDE, 4)), np.random.default_rng(0)
    wide = np.ones(8)
    wide[0] = factor
    top = made.conv(
        made.input, rng.normal(0, 1, (8, 1, 1, 4)) * wide[:, None, None, None], np.ones(8) * wide
    )
    low = made.conv(
        made.pool(top),
        np.abs(rng.normal(0, 0.1, (8, 1, 1, 8))) * wide[:, None, None, None] / wide,
        np.zeros(8),
    )
    head = np.abs(rng.normal(0, 1, (1, 1, 1, 8))) / wide
    out = made.conv(made.add(made.up(low), top), head, [-16.0], relu=False)
    return made.file(out), {top: "skip", low: "lift", out: "head"}


def cancelling() -> tuple[bytes, dict[int, str]]:
    """Two channels of a skip hold one large signal, and only their small difference matters.

    No factor and no clipping helps: both channels are wide and needed to the last digit.
    """
    made = FloatFile((SIDE, SIDE, 4))
    weights = np.zeros((2, 1, 1, 4))
    weights[:, 0, 0, 1], weights[0, 0, 0, 0] = 50, 1
    top = made.conv(made.input, weights, [200, 200])
    low = made.conv(made.pool(top), np.full((2, 1, 1, 2), 1e-3), [0, 0])
    out = made.conv(made.add(made.up(low), top), [[[[1.0, -1.0]]]], [-0.3], relu=False)
    return made.file(out), {top: "skip", low: "lift", out: "head"}


def mask(content: bytes, given: Slices) -> NDArray[np.bool_]:
    """Which pixels have an output above 0: the last tensor that is computed."""
    return np.stack([values[max(values)][0] > 0 for values in tensor_values(content, given)])


def drop(int8: bytes, fp32: bytes, given: Slices) -> float:
    """How far the Dice of the int8 masks is below 1, with the float masks as ground truth."""
    mine, truth = mask(int8, given), mask(fp32, given)
    return float(1 - 2 * (mine & truth).sum() / (mine.sum() + truth.sum()))


@torch.no_grad()
def handmade_unet(broken: Literal["", "wide", "cancelling"] = "") -> UNet:
    """A U-Net that finds the tumours of `cases`: where the mean of the modalities is large.

    `wide`: a channel of the skip that the mask does not need has 50 times its range.
    `cancelling`: the skip holds 50 times another modality in two channels, which the decoder
    subtracts from each other.
    """
    network = random_network((4, 6))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            for values, value in (
                (module.weight, 1.0), (module.bias, 0.0),
                (module.running_mean, 0.0), (module.running_var, 1 - module.eps),
            ):  # fmt: skip
                values.fill_(value)
    first, skip = network.encoder[0][0], network.encoder[0][1]  # type: ignore[index]
    lift, decode = network.lift[0], network.decoder[0]
    mix = torch.tensor([[1 / 16] * 4, [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0.5, 0.5, 0, 0]])
    keep, passed = torch.eye(4), torch.eye(4)
    if broken == "wide":
        keep[1] *= 50
        passed[:, 1] /= 50
        network.encoder[1][0][0].weight[:, 1] /= 50  # type: ignore[index]
    if broken == "cancelling":
        keep[0, 1] = keep[1, 1] = 50
        passed[0, 1] = -1
    for block, weights, shift in ((first, mix, 5.0), (skip, keep, 0.0), (decode, passed, 0.0)):
        block[0].weight.fill_(0)  # type: ignore[index]
        block[0].weight[:, :, 1, 1] = weights  # type: ignore[index]
        block[1].bias.fill_(shift)  # type: ignore[index]
    lift[0].weight.fill_(0)  # type: ignore[index]
    network.head.weight.fill_(0)
    network.head.weight[:, 0] = 16
    assert network.head.bias is not None
    network.head.bias.fill_(-16 * (5 + 0.9 / 4))
    return network


class WithPReLU(UNet):
    """The shipped architecture with PReLU put back into one layer."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.encoder[1][0][2] = nn.PReLU(config.widths[1])  # type: ignore[index]
