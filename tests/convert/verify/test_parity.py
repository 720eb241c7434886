import numpy as np
import pytest
import torch

from convert.tflite.reader import read_model
from convert.verify.layer_errors import label_tensors
from convert.verify.parity import Block, check_parity, match_blocks, torch_steps
from glioslice.errors import GliosliceError
from tests.convert.conftest import WINDOW, random_network
from tests.convert.float_files import of_unet, scale_weights
from training.network import Network, fold_batch_norms

SLICES = np.random.default_rng(0).normal(0, 1, (2, *WINDOW, 4)).astype(np.float32)


def blocks_in(content: bytes, network: Network) -> tuple[Block, ...]:
    return match_blocks(torch_steps(fold_batch_norms(network), SLICES), content, SLICES)


def test_every_layer_is_found() -> None:
    network = random_network((4, 6))
    content = of_unet(network, WINDOW)
    blocks = blocks_in(content, network)
    names = ["encoder.0.0", "encoder.0.1", "encoder.1.0", "encoder.1.1", "lift.0", "decoder.0"]
    assert [block.name for block in blocks] == [*names, "head"]
    assert all(block.snr > 100 for block in blocks)
    assert blocks[0].kinds == ("Conv2d", "ReLU")
    labels = label_tensors(read_model(content), check_parity(blocks))
    assert "lift.0 + encoder.0.1" in labels.values()  # the sum is named after what it adds
    assert list(labels.values()).count("encoder.0.1") == 2  # and so is what is pooled


@pytest.mark.parametrize(("layer", "name"), [(0, "encoder.0.0"), (2, "encoder.1.0"), (6, "head")])
@pytest.mark.parametrize("factor", [1.05, float("nan")])
def test_the_first_layer_that_differs_is_named(layer: int, name: str, factor: float) -> None:
    network = random_network((4, 6))
    blocks = blocks_in(scale_weights(of_unet(network, WINDOW), layer, factor), network)
    with pytest.raises(GliosliceError, match=rf"from {name} \(Conv2d"):
        check_parity(blocks)


def test_a_missing_activation_is_named_with_its_layer() -> None:
    network = random_network((4, 6))
    content = of_unet(network, WINDOW)
    network.encoder[1][0][2] = torch.nn.PReLU(6)  # type: ignore[index]
    with pytest.raises(GliosliceError, match=r"encoder\.1\.0 \(Conv2d, PReLU\)"):
        check_parity(blocks_in(content, network))
