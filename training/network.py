"""The U-Net: plain 3 x 3 convolutions, because bytes and int8 kernels reward nothing else here.

Depthwise layers lose at this size (scales eat the bytes), transposed convolutions and HardSwish are
slow in int8, PReLU and InstanceNorm do not survive conversion. Skips are added, not concatenated:
half the weights of the decoder's convolutions.

The float checkpoint behind the engine's interface, to be judged on the same path.
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
    """What fixes a network's shape: `widths` are the channels of each level, fine to coarse.

    `design` is the class that is built of it, as package.module:Class; `upsampling` is nearest or
    bilinear, the kind that XNNPACK takes; `stem` is the stride of the first convolution, 1 or 2:
    with 2 all levels have half the pixels along each side, and the logits are upsampled at the end.
    """

    widths: tuple[int, ...]
    inputs: int = 4
    outputs: int = 3
    design: str = "training.network:UNet"
    upsampling: str = "nearest"
    stem: int = 1


SIZES = {
    # Two bytes a weight: 25,787 weights are 57 kB in fp16.
    "nano": NetworkConfig(widths=(8, 16, 18, 24), upsampling="bilinear"),
    # One byte a weight, int8 only: 44,323 weights and their scales are 55 kB.
    "compact": NetworkConfig(widths=(16, 16, 20, 20, 24), upsampling="bilinear", stem=2),
}


def convolution(
    inputs: int, outputs: int, kernel: int, *, dilation: int = 1, stride: int = 1
) -> nn.Sequential:
    """Return convolution, batch norm, ReLU; conversion folds the norm into the convolution."""
    padding = kernel // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def doubled(x: Tensor, how: str) -> Tensor:
    """Return (B, C, H, W) as (B, C, 2H, 2W), nearest or bilinear in TFLite's plain form.

    Bilinear is y[2i] = x[i] and y[2i + 1] = (x[i] + x[i + 1]) / 2 along each side, the last x
    repeated: an Edge TPU takes no half-pixel centres.
    """
    if how == "nearest":
        return interpolate(x, scale_factor=2.0, mode="nearest")
    if torch.onnx.is_in_onnx_export():
        exported: Tensor = _PlainBilinear.apply(x)  # type: ignore[no-untyped-call]
        return exported
    height, width = x.shape[-2:]
    # With aligned corners, n + 1 points on 2n + 1 lie half a point apart.
    wider = interpolate(
        pad(x, (0, 1, 0, 1), mode="replicate"),
        (2 * height + 1, 2 * width + 1),
        mode="bilinear",
        align_corners=True,
    )
    return wider[..., : 2 * height, : 2 * width]


class _PlainBilinear(torch.autograd.Function):
    """What ONNX calls an asymmetric linear Resize: torch has no name for it."""

    @staticmethod
    def forward(_context: Any, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)  # the shape alone matters

    @staticmethod
    def symbolic(graph: Any, x: Any) -> Any:
        scales = graph.op("Constant", value_t=torch.tensor([1.0, 1.0, 2.0, 2.0]))
        nothing = graph.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
        size = x.type().sizes()
        resized = graph.op(
            "Resize", x, nothing, scales,
            coordinate_transformation_mode_s="asymmetric", mode_s="linear",
        )  # fmt: skip
        resized.setType(x.type().with_sizes([size[0], size[1], 2 * size[2], 2 * size[3]]))
        return resized


def descended(encoder: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """Return what each level of an encoder makes of `x`, fine to coarse, halved in between."""
    made: list[Tensor] = []
    for level in encoder:
        x = level(max_pool2d(x, 2) if made else x)
        made.append(x)
    return made


class Network(nn.Module):
    """(B, inputs, H, W) to (B, outputs, H, W) logits of WT, TC, ET, positive inside the region.

    Convolutions come from `convolution`; the last one, without norm, is `head`.
    """

    head: nn.Conv2d

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config


class UNet(Network):
    """The kit's network; H and W must be divisible by stem * 2 ** (levels - 1)."""

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
        *skips, x = descended(self.encoder, x)
        for lift, decode, skip in zip(self.lift, self.decoder, reversed(skips), strict=True):
            # The 1 x 1 comes before the upsampling: a quarter of the MACs, the same result.
            x = decode(doubled(lift(x), self.config.upsampling) + skip)
        logits: Tensor = self.head(x)
        return doubled(logits, self.config.upsampling) if self.config.stem == 2 else logits


def build(config: NetworkConfig) -> Network:
    """Return a new network of the config's design.

    Raises GliosliceError if the design cannot be imported or is no Network.
    """
    design = _named(config.design)
    if not (isinstance(design, type) and issubclass(design, Network)):
        raise GliosliceError(f"{config.design}: not a Network (training/network.py)")
    return design(config)


def named_config(name: str) -> tuple[str, NetworkConfig]:
    """Return model name and config of one of SIZES, or of a constant package.module:NAME.

    Raises GliosliceError if there is none.
    """
    if name in SIZES:
        return name, SIZES[name]
    if ":" not in name:
        raise GliosliceError(
            f"no size '{name}': {', '.join(sorted(SIZES))}, or package.module:NAME of a config"
        )
    config = _named(name)
    if not isinstance(config, NetworkConfig):
        raise GliosliceError(f"{name}: not a NetworkConfig (training/network.py)")
    return name.partition(":")[2].lower(), config


def _named(path: str) -> object:
    module, _, name = path.partition(":")
    try:
        found: object = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise GliosliceError(f"{path}: cannot be imported ({error})") from None
    return found


def folded(network: Network) -> Network:
    """Return a copy in evaluation mode with each batch norm folded into its convolution."""
    from copy import deepcopy

    from torch.nn.utils.fusion import fuse_conv_bn_eval

    copy = deepcopy(network).eval()
    for module in list(copy.modules()):
        if isinstance(module, nn.Sequential) and isinstance(module[0], nn.Conv2d):
            module[0] = fuse_conv_bn_eval(module[0], module[1])  # type: ignore[arg-type]
            module[1] = nn.Identity()
    return copy


def parameters(network: Network) -> int:
    """Return how many numbers a file holds: weights and biases with the batch norms folded."""
    return sum(p.numel() for p in folded(network).parameters())


def macs(network: Network, window: tuple[int, int]) -> int:
    """Return the multiply-accumulates of one slice of `window` pixels."""
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += module.weight[0].numel() * output.numel()

    copy = folded(network)
    for module in copy.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        copy(torch.zeros(1, network.config.inputs, *window))
    return total


@dataclass(frozen=True)
class TorchNetwork:
    """A network with its card; the card's thresholds are not folded into its last bias."""

    network: Network
    card: Card

    @torch.no_grad()
    def run(self, z_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return WT, TC, ET (3, X, Y) of a slice (X, Y, 4): sigmoid above the card's thresholds."""
        thresholds = self.card.content["output"]["thresholds"]
        batch = torch.from_numpy(z_scores).permute(2, 0, 1)[None]
        chances = torch.sigmoid(self.network(batch))[0].numpy()
        return np.stack([chances[i] > thresholds[region] for i, region in enumerate(REGIONS)])
