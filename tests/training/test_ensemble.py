"""Several networks as one, and how a volume is judged by them."""

import numpy as np
import torch

from glioslice.labels import to_labels
from glioslice.metrics import region_dice
from training.dataset import Slices
from training.ensemble import Ensemble, case_dice, middle
from training.network import Network, NetworkConfig, build
from training.process import Process

PLACE = Process(0, 1, torch.device("cpu"), mixed=False)


def network(seed: int, inputs: int = 4) -> Network:
    torch.manual_seed(seed)
    return build(NetworkConfig((4, 6), inputs=inputs)).eval()


def test_the_mean_of_what_they_say() -> None:
    networks = tuple(network(seed) for seed in range(3))
    images = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        wanted = sum(torch.sigmoid(one(images)) for one in networks) / 3
    torch.testing.assert_close(Ensemble(networks).chances(images, PLACE), wanted)


def test_each_sees_as_many_slices_as_it_can() -> None:
    images = torch.arange(5 * 4.0).reshape(1, 20, 1, 1).expand(1, 20, 8, 8)
    for neighbours in (0, 1, 2):
        seen = middle(images, neighbours)[0, :, 0, 0].tolist()
        assert seen == list(range(8 - 4 * neighbours, 12 + 4 * neighbours))
    both = Ensemble((network(0), network(1, inputs=12)))
    assert both.neighbours == 1
    assert both.chances(images[:, 4:16], PLACE).shape == (1, 3, 8, 8)


def test_a_volume_is_judged_slice_by_slice() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(20, 160, 192, 4)).astype(np.float16)
    labels = rng.integers(0, 4, (20, 160, 192)).astype(np.uint8)
    for inputs in (4, 12):
        one = network(0, inputs)
        dice = case_dice(Ensemble((one,)), Slices("a", "", images, labels), PLACE)
        masks = []
        for z in range(20):
            around = [max(z - 1, 0), z, min(z + 1, 19)] if inputs == 12 else [z]
            seen = np.concatenate([images[i] for i in around], -1).astype(np.float32)
            with torch.no_grad():
                logits = one(torch.from_numpy(seen).permute(2, 0, 1)[None])[0]
            masks.append((logits > 0).numpy())
        wanted = region_dice(to_labels(np.stack(masks, 1)), labels)
        assert {k: round(v, 6) for k, v in dice.items()} == {
            k: round(v, 6) for k, v in wanted.items()
        }
        assert 0 < dice["WT"] < 1
