"""Baseline networks of docs/accuracy.md: MeshNet and a plain U-Net.

    python training/train.py --size benchmarks.baseline_networks:MESHNET ...

Both are built of our `convolution`, so that they are trained, converted and packed like our own.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from training.network import Network, NetworkConfig, convolution, encode, upsample

DILATIONS = (1, 1, 2, 4, 8, 4, 2, 1)
"""After MeshNet (Fedorov et al., IJCNN 2017): a field of view that widens and narrows again."""


class MeshNet(Network):
    """A stack of dilated 3 x 3 convolutions without any pooling, as wide as `widths`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        widths = (config.inputs, *config.widths)
        self.stack = nn.Sequential(
            *(
                convolution(fan_in, width, 3, dilation=dilation)
                for (fan_in, width), dilation in zip(pairwise(widths), DILATIONS, strict=True)
            )
        )
        self.head = nn.Conv2d(config.widths[-1], config.outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.stack(x))
        return logits


class PlainUNet(Network):
    """U-Net (Ronneberger et al., MICCAI 2015): two convolutions a level, concatenated skips."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        fans_in = (config.inputs, *config.widths)
        self.encoder = nn.ModuleList(_double(a, b) for a, b in pairwise(fans_in))
        upward = list(pairwise(reversed(config.widths)))  # (coarse, fine) from the bottom up
        self.lift = nn.ModuleList(convolution(coarse, fine, 1) for coarse, fine in upward)
        self.decoder = nn.ModuleList(_double(2 * fine, fine) for _, fine in upward)
        self.head = nn.Conv2d(config.widths[0], config.outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        *skips, x = encode(self.encoder, x)
        for lift, decode, skip in zip(self.lift, self.decoder, reversed(skips), strict=True):
            x = decode(torch.cat([upsample(lift(x), self.config.upsampling), skip], 1))
        logits: Tensor = self.head(x)
        return logits


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(convolution(inputs, outputs, 3), convolution(outputs, outputs, 3))


MESHNET = NetworkConfig(
    widths=(24,) * len(DILATIONS), design="benchmarks.baseline_networks:MeshNet"
)
PLAIN_UNET = NetworkConfig(
    widths=(32, 64, 128, 256), design="benchmarks.baseline_networks:PlainUNet"
)
