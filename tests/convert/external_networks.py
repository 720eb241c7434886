"""External networks as their authors would supply them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Skips(nn.Module):
    """Three channels in, two masks out, skips concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.top = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.low = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.up = nn.Upsample(scale_factor=2)
        self.join = nn.Sequential(nn.Conv2d(20, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        top = self.top(x)
        low = self.low(nn.functional.max_pool2d(top, 2))
        made: Tensor = self.head(self.join(torch.cat([self.up(low), top], 1)))
        return made


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def _centred(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Let each output be above 0 as often as below: as random as it is, it would never change."""
    last = list(network.children())[-1]
    assert isinstance(last.bias, Tensor)
    with torch.no_grad():
        made = network(torch.from_numpy(images(32, shape))).movedim(1, -1)
        last.bias -= made.flatten(0, -2).median(0).values
    return network


def skips() -> nn.Module:
    return _seeded(Skips)


def cancelling() -> nn.Module:
    """What int8 cannot hold: two large channels, and a mask of their small difference."""
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1)).eval()
    first, last = network[0], network[2]
    assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
    assert first.bias is not None and last.bias is not None
    with torch.no_grad():
        first.weight.zero_()
        first.weight[:, 1] = 50
        first.weight[0, 0] = 1
        first.bias.fill_(300)
        last.weight.copy_(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1))
        last.bias.zero_()
    return network


def pooled() -> nn.Module:
    """One channel in, averages instead of maxima."""
    network = _seeded(
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2)),
            nn.Conv2d(6, 1, 1),
        )
    )
    return _centred(network, (1, 24, 32))


def classifier() -> nn.Module:
    """Strided convolutions, a depthwise one among them, and five numbers an image."""
    network = _seeded(
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 8, 3, stride=2), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6()),
            *(nn.Conv2d(8, 16, 3, stride=2), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(16, 5),
        )
    )
    return _centred(network, (2, 24, 24))


def prelu() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 1, 1))


class Twice(nn.Module):
    """Two outputs."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, 2 * x


def broken() -> nn.Module:
    raise RuntimeError("no weights here")


def nan() -> nn.Module:
    network = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        network.weight[0, 0, 0, 0] = float("nan")
    return network


def no_module() -> int:
    return 3


def images(count: int = 16, shape: tuple[int, ...] = (3, 24, 32)) -> NDArray[np.float32]:
    """Patches of noise, each with a brighter one in it somewhere."""
    rng = np.random.default_rng(0)
    made = rng.normal(0, 1, (count, *shape)).astype(np.float32)
    for image in made:
        row, column = rng.integers(2, 10, 2)
        image[:, row : row + 10, column : column + 12] += 2
    return made


def onnx_of_any(
    path: Path, network: nn.Module, shape: tuple[int, ...], *, free: tuple[int, ...] = ()
) -> Path:
    """Write a network as its author would: names of its own, and some sizes left open."""
    torch.onnx.export(
        network, (torch.zeros(1, *shape),), str(path), dynamo=False, opset_version=17,
        input_names=["pixels"], output_names=["y"],
        dynamic_axes={"pixels": {axis: f"size{axis}" for axis in free}},
    )  # fmt: skip
    return path
