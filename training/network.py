"""The U-Net: plain 3 x 3 convolutions, because bytes and int8 kernels reward nothing else here.

Depthwise layers lose at this size (scales eat the bytes), transposed convolutions and HardSwish are
slow in int8, PReLU and InstanceNorm do not survive conversion. Skips are added, not concatenated:
half the weights of the decoder's convolutions.
"""

from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from glioslice.errors import GliosliceError


@dataclass(frozen=True)
class NetworkConfig:
    """What fixes a network's shape: `widths` are the channels of each level, fine to coarse.

    `design` is the class that is built of it, as package.module:Class.
    """

    widths: tuple[int, ...]
    inputs: int = 4
    outputs: int = 3
    design: str = "training.network:UNet"


SIZES = {
    # Two bytes a weight: 25,787 weights are 57 kB in fp16.
    "nano": NetworkConfig(widths=(8, 16, 18, 24)),
    # One byte a weight, int8 only: 49,867 weights and their scales are 59 kB.
    "compact": NetworkConfig(widths=(8, 16, 28, 38)),
}


def convolution(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Return convolution, batch norm, ReLU; conversion folds the norm into the convolution."""
    padding = kernel // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Network(nn.Module):
    """(B, inputs, H, W) to (B, outputs, H, W) logits of WT, TC, ET, positive inside the region.

    Convolutions come from `convolution`; the last one, without norm, is `head`.
    """

    head: nn.Conv2d

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config


class UNet(Network):
    """The kit's network; H and W must be divisible by 2 ** (levels - 1)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        fans_in = (config.inputs, *config.widths)
        self.encoder = nn.ModuleList(
            nn.Sequential(convolution(fan_in, width, 3), convolution(width, width, 3))
            for fan_in, width in pairwise(fans_in)
        )
        upward = list(pairwise(reversed(config.widths)))  # (coarse, fine) from the bottom up
        self.lift = nn.ModuleList(convolution(coarse, fine, 1) for coarse, fine in upward)
        self.decoder = nn.ModuleList(convolution(fine, fine, 3) for _, fine in upward)
        self.head = nn.Conv2d(config.widths[0], config.outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        skips: list[Tensor] = []
        for level in self.encoder:
            if skips:
                x = max_pool2d(x, 2)
            x = level(x)
            skips.append(x)
        for lift, decode, skip in zip(self.lift, self.decoder, reversed(skips[:-1]), strict=True):
            # The 1 x 1 comes before the upsampling: a quarter of the MACs, the same result.
            x = decode(interpolate(lift(x), scale_factor=2.0, mode="nearest") + skip)
        logits: Tensor = self.head(x)
        return logits


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
