"""Sizes of the networks, folding of batch norms and upsampling."""

import pytest
import torch
from torch import nn

from training.network import (
    SIZES,
    NetworkConfig,
    UNet,
    count_macs,
    count_parameters,
    fold_batch_norms,
    upsample,
)


@pytest.mark.parametrize(("size", "limit"), [("nano", 26_500), ("compact", 50_000)])
def test_sizes_are_within_the_limits(size: str, limit: int) -> None:
    network = UNet(SIZES[size])
    assert count_parameters(network) <= limit
    assert count_macs(network, (160, 192)) <= 220e6


def test_parameters_and_macs() -> None:
    network = UNet(NetworkConfig(widths=(2, 3), inputs=1, outputs=1))
    convolutions = [(1, 2, 9), (2, 2, 9), (2, 3, 9), (3, 3, 9), (3, 2, 1), (2, 2, 9), (2, 1, 1)]
    assert count_parameters(network) == sum(i * o * k + o for i, o, k in convolutions)
    at = [64, 64, 16, 16, 16, 64, 64]  # 8 x 8 pixels, a quarter of them below
    weights = [i * o * k for i, o, k in convolutions]
    assert count_macs(network, (8, 8)) == sum(w * p for w, p in zip(weights, at, strict=True))
    halved = UNet(NetworkConfig(widths=(2, 3), inputs=1, outputs=1, stem=2))
    assert count_parameters(halved) == count_parameters(network)
    assert count_macs(halved, (8, 8)) == count_macs(network, (8, 8)) // 4
    assert halved(torch.zeros(1, 1, 8, 12)).shape == (1, 1, 8, 12)


def test_folding_preserves_the_outputs() -> None:
    torch.manual_seed(0)
    network = UNet(SIZES["nano"]).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    x = torch.randn(1, 4, 32, 48)
    torch.testing.assert_close(fold_batch_norms(network)(x), network(x), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fold_batch_norms(network).modules())


def test_plain_bilinear_upsampling() -> None:
    x = torch.tensor([[0.0, 2.0], [4.0, 8.0]])[None, None]
    expected = [[0, 1, 2, 2], [2, 3.5, 5, 5], [4, 6, 8, 8], [4, 6, 8, 8]]
    torch.testing.assert_close(upsample(x, "bilinear")[0, 0], torch.tensor(expected))
    assert upsample(x, "nearest")[0, 0, 1].tolist() == [0, 0, 2, 2]
    grown = torch.randn(2, 3, 20, 24, requires_grad=True)
    upsample(grown, "bilinear").sum().backward()
    assert grown.grad is not None
    assert grown.grad.sum() == pytest.approx(2 * 3 * 40 * 48)
