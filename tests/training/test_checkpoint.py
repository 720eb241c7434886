"""A checkpoint that does not match its card is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json
from glioslice.model_card import CARD
from training.checkpoint import load_model, make_card, write_model
from training.network import SIZES, UNet


def write(folder: Path, network: UNet, name: str = "nano") -> Path:
    write_model(folder, network, make_card(network, name, {"cases": []}, [], []))
    return folder


def test_weights_survive_a_round_trip(tmp_path: Path) -> None:
    network = UNet(replace(SIZES["nano"], stem=2))
    loaded, card = load_model(write(tmp_path, network))
    assert card.content["network"]["parameters"] == 25_787
    assert loaded.config == network.config
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_nan_weights(tmp_path: Path) -> None:
    network = UNet(SIZES["nano"])
    network.state_dict()["head.bias"][1] = torch.nan
    with pytest.raises(GliosliceError, match=r"head\.bias holds NaN"):
        load_model(write(tmp_path, network))


def test_wrong_shape(tmp_path: Path) -> None:
    write(tmp_path, UNet(SIZES["nano"]))
    content = read_json(tmp_path / CARD)
    content["network"]["widths"] = [8, 16, 18, 25]
    write_json(tmp_path / CARD, content)
    with pytest.raises(GliosliceError, match=r"\(8, 16, 18, 25\)"):
        load_model(tmp_path)


def test_damaged_file(tmp_path: Path) -> None:
    write(tmp_path, UNet(SIZES["nano"]))
    (tmp_path / "nano.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(GliosliceError, match="SHA-256"):
        load_model(tmp_path)


def test_missing_card(tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match=r"card\.json: no such file"):
        load_model(tmp_path)
