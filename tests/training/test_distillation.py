"""Several networks as one, and how a volume is judged by them."""

import numpy as np
import pytest
import torch

from glioslice.labels import to_labels
from glioslice.metrics import region_dice
from training.dataset import Slices
from training.distillation import Ensemble, case_dice
from training.distributed import Process
from training.network import Network, NetworkConfig, build

PLACE = Process(0, 1, torch.device("cpu"), mixed=False)


def network(seed: int) -> Network:
    torch.manual_seed(seed)
    return build(NetworkConfig((4, 6))).eval()


def test_the_mean_of_what_they_say() -> None:
    networks = tuple(network(seed) for seed in range(3))
    images = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        wanted = sum(torch.sigmoid(one(images)) for one in networks) / 3
    torch.testing.assert_close(Ensemble(networks).chances(images, PLACE), wanted)


def test_a_volume_is_judged_slice_by_slice() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(20, 160, 192, 4)).astype(np.float16)
    labels = rng.integers(0, 4, (20, 160, 192)).astype(np.uint8)
    one = network(0)
    dice = case_dice(Ensemble((one,)), Slices("a", "", images, labels), PLACE)
    masks = []
    for each in images:
        with torch.no_grad():
            logits = one(torch.from_numpy(each.astype(np.float32)).permute(2, 0, 1)[None])[0]
        masks.append((logits > 0).numpy())
    wanted = region_dice(to_labels(np.stack(masks, 1)), labels)
    assert dice == pytest.approx(wanted, abs=1e-6)
    assert 0 < dice["WT"] < 1
