"""The U-Net and its sizes: plain 3 x 3 convolutions suit both the byte limit and int8 kernels.

Depthwise layers lose at this size because quantization scales cost too many bytes. Transposed
convolutions and HardSwish are slow in int8. PReLU and InstanceNorm do not survive conversion. Skips
are added, not concatenated, which halves the weights of the decoder's convolutions.
"""

from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, pad

from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.model_card import Card


@dataclass(frozen=True)
class NetworkConfig:
    """The architecture of a network.

    `widths` are the channels of each level, fine to coarse. `design` is the class to build, as
    package.module:Class. `upsampling` is nearest or bilinear; XNNPACK accelerates both. `stem` is
    the stride of the first convolution, 1 or 2; with 2 each level has half the pixels along each
    side, and the logits are upsampled at the end.
    """

    widths: tuple[int, ...]
    inputs: int = 4
    outputs: int = 3
    design: str = "training.network:UNet"
    upsampling: str = "nearest"
    stem: int = 1


SIZES = {
    # Two bytes per weight in fp16: 25,787 weights take 57 kB.
    "nano": NetworkConfig(widths=(8, 16, 18, 24), upsampling="bilinear"),
    # One byte per weight in int8: 44,323 weights and their scales take 55 kB.
    "compact": NetworkConfig(widths=(16, 16, 20, 20, 24), upsampling="bilinear", stem=2),
}


def convolution(
    inputs: int, outputs: int, kernel: int, *, dilation: int = 1, stride: int = 1
) -> nn.Sequential:
    """Return convolution, batch norm and ReLU; conversion folds the norm into the convolution."""
    padding = kernel // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def upsample(x: Tensor, mode: str) -> Tensor:
    """Return (B, C, H, W) as (B, C, 2H, 2W); `mode` is nearest or bilinear.

    Bilinear is y[2i] = x[i] and y[2i + 1] = (x[i] + x[i + 1]) / 2 along each axis, with the last x
    repeated: the Edge TPU does not support half-pixel centres.
    """
    if mode == "nearest":
        return interpolate(x, scale_factor=2.0, mode="nearest")
    if torch.onnx.is_in_onnx_export():
        exported: Tensor = _PlainBilinear.apply(x)  # type: ignore[no-untyped-call]
        return exported
    height, width = x.shape[-2:]
    # With aligned corners, resizing n + 1 points to 2n + 1 samples them half a point apart.
    wider = interpolate(
        pad(x, (0, 1, 0, 1), mode="replicate"),
        (2 * height + 1, 2 * width + 1),
        mode="bilinear",
        align_corners=True,
    )
    return wider[..., : 2 * height, : 2 * width]


class _PlainBilinear(torch.autograd.Function):
    """ONNX's asymmetric linear Resize, which torch has no equivalent of."""

    @staticmethod
    def forward(_context: Any, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)  # only the shape matters

    @staticmethod
    def symbolic(graph: Any, x: Any) -> Any:
        scales = graph.op("Constant", value_t=torch.tensor([1.0, 1.0, 2.0, 2.0]))
        no_roi = graph.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
        size = x.type().sizes()
        resized = graph.op(
            "Resize", x, no_roi, scales,
            coordinate_transformation_mode_s="asymmetric", mode_s="linear",
        )  # fmt: skip
        resized.setType(x.type().with_sizes([size[0], size[1], 2 * size[2], 2 * size[3]]))
        return resized


def encode(encoder: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """Return the output of each encoder level, fine to coarse, with max-pooling in between."""
    outputs: list[Tensor] = []
    for level in encoder:
        x = level(max_pool2d(x, 2) if outputs else x)
        outputs.append(x)
    return outputs


class Network(nn.Module):
    """Base class: (B, inputs, H, W) to logits (B, outputs, H, W) of WT, TC, ET.

    Convolutions are built by `convolution`; the last one, which has no norm, is `head`.
    """

    head: nn.Conv2d

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config


class UNet(Network):
    """The shipped architecture; H and W must be divisible by stem * 2 ** (levels - 1)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        fans_in = (config.inputs, *config.widths)
        self.encoder = nn.ModuleList(
            nn.Sequential(
                convolution(fan_in, width, 3, stride=1 if level else config.stem),
                convolution(width, width, 3),
            )
            for level, (fan_in, width) in enumerate(pairwise(fans_in))
        )
        upward = list(pairwise(reversed(config.widths)))  # (coarse, fine) from the bottom up
        self.lift = nn.ModuleList(convolution(coarse, fine, 1) for coarse, fine in upward)
        self.decoder = nn.ModuleList(convolution(fine, fine, 3) for _, fine in upward)
        self.head = nn.Conv2d(config.widths[0], config.outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        *skips, x = encode(self.encoder, x)
        for lift, decode, skip in zip(self.lift, self.decoder, reversed(skips), strict=True):
            # The 1 x 1 convolution commutes with upsampling and costs a quarter of the MACs before.
            x = decode(upsample(lift(x), self.config.upsampling) + skip)
        logits: Tensor = self.head(x)
        return upsample(logits, self.config.upsampling) if self.config.stem == 2 else logits


def build_network(config: NetworkConfig) -> Network:
    """Return a new network of the config's design.

    Raises GliosliceError if the design cannot be imported or is not a Network.
    """
    design = _import_name(config.design)
    if not (isinstance(design, type) and issubclass(design, Network)):
        raise GliosliceError(f"{config.design}: not a Network (training/network.py)")
    return design(config)


def find_config(name: str) -> tuple[str, NetworkConfig]:
    """Return model name and config of one of SIZES, or of a constant package.module:NAME.

    Raises GliosliceError if it does not exist.
    """
    if name in SIZES:
        return name, SIZES[name]
    if ":" not in name:
        raise GliosliceError(
            f"no size '{name}': {', '.join(sorted(SIZES))}, or package.module:NAME of a config"
        )
    config = _import_name(name)
    if not isinstance(config, NetworkConfig):
        raise GliosliceError(f"{name}: not a NetworkConfig (training/network.py)")
    return name.partition(":")[2].lower(), config


def _import_name(path: str) -> object:
    module, _, name = path.partition(":")
    try:
        found: object = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise GliosliceError(f"{path}: cannot be imported ({error})") from None
    return found


def fold_batch_norms(network: Network) -> Network:
    """Return a copy in evaluation mode with each batch norm folded into its convolution."""
    from copy import deepcopy

    from torch.nn.utils.fusion import fuse_conv_bn_eval

    copy = deepcopy(network).eval()
    for module in list(copy.modules()):
        if isinstance(module, nn.Sequential) and isinstance(module[0], nn.Conv2d):
            module[0] = fuse_conv_bn_eval(module[0], module[1])  # type: ignore[arg-type]
            module[1] = nn.Identity()
    return copy


def count_parameters(network: Network) -> int:
    """Return the number of weights and biases once the batch norms are folded, as in a file."""
    return sum(p.numel() for p in fold_batch_norms(network).parameters())


def count_macs(network: Network, window: tuple[int, int]) -> int:
    """Return the multiply-accumulate operations for one slice of `window` pixels."""
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += module.weight[0].numel() * output.numel()

    copy = fold_batch_norms(network)
    for module in copy.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        copy(torch.zeros(1, network.config.inputs, *window))
    return total


@dataclass(frozen=True)
class TorchNetwork:
    """A float network with the interface of `device.engine.Engine`.

    The card's thresholds are applied here; in TFLite files they are folded into the last bias.
    If the card asks for mirroring, the logits are the mean of those of the slice and its mirror
    image, as in the engine.
    """

    network: Network
    card: Card

    def run(self, z_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return the regions (3, X, Y) of a slice (X, Y, 4): sigmoid above the thresholds."""
        regions: NDArray[np.bool_] = self.run_batch(z_scores[np.newaxis])[0]
        return regions

    @torch.no_grad()
    def run_batch(self, z_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return the regions (N, 3, X, Y) of slices (N, X, Y, 4), as `run` does for each."""
        thresholds = self.card.content["output"]["thresholds"]
        batch = torch.from_numpy(z_scores).permute(0, 3, 1, 2)
        logits = self.network(batch)
        if self.card.mirroring:
            logits = (logits + self.network(batch.flip(2)).flip(2)) / 2
        probabilities = torch.sigmoid(logits).numpy()  # (N, 3, X, Y)
        limits = np.array([thresholds[region] for region in REGIONS], np.float32)
        return np.asarray(probabilities > limits[:, np.newaxis, np.newaxis])
