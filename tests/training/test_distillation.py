"""Ensembles average probabilities; volume Dice is computed over slices."""

import numpy as np
import pytest
import torch

from glioslice.labels import to_labels
from glioslice.metrics import region_dice
from training.dataset import CaseSlices
from training.distillation import Ensemble, volume_dice
from training.distributed import DistributedContext
from training.network import Network, NetworkConfig, build_network

CONTEXT = DistributedContext(0, 1, torch.device("cpu"), mixed_precision=False)


def network(seed: int) -> Network:
    torch.manual_seed(seed)
    return build_network(NetworkConfig((4, 6))).eval()


def test_an_ensemble_averages_probabilities() -> None:
    networks = tuple(network(seed) for seed in range(3))
    images = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        expected = sum(torch.sigmoid(one(images)) for one in networks) / 3
    torch.testing.assert_close(Ensemble(networks).probabilities(images, CONTEXT), expected)


def test_volume_dice_matches_slices_one_by_one() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(20, 160, 192, 4)).astype(np.float16)
    labels = rng.integers(0, 4, (20, 160, 192)).astype(np.uint8)
    one = network(0)
    dice = volume_dice(Ensemble((one,)), CaseSlices("a", "", images, labels), CONTEXT)
    masks = []
    for each in images:
        with torch.no_grad():
            logits = one(torch.from_numpy(each.astype(np.float32)).permute(2, 0, 1)[None])[0]
        masks.append((logits > 0).numpy())
    expected = region_dice(to_labels(np.stack(masks, 1)), labels)
    assert dice == pytest.approx(expected, abs=1e-6)
    assert 0 < dice["WT"] < 1
