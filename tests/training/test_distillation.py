"""Ensembles average probabilities; volume Dice is computed over slices."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glioslice.errors import GliosliceError
from glioslice.labels import to_labels
from glioslice.metrics import region_dice
from glioslice.model_card import Card
from training.dataset import CaseSlices
from training.distillation import Ensemble, check_unseen, volume_dice
from training.network import Network, NetworkConfig, build_network
from training.trainer import DistributedContext

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


def card_of(**training: Any) -> Card:
    cases = [{"case": "BraTS-GLI-00001-000", "digest": "d1"}, {"case": "mine", "digest": "d2"}]
    content = {"training": {"cases": cases} | training}
    return Card("nano", (160, 192), 5.0, frozenset({"d1", "d2"}), content)


def held_out(case: str, digest: str) -> list[CaseSlices]:
    return [CaseSlices(case, digest, np.zeros((1, 1, 1, 4), np.float16), np.zeros((1, 1, 1), "u1"))]


@pytest.mark.parametrize(
    ("case", "digest", "training", "message"),
    [
        ("renamed", "d2", {}, "the held-out case renamed"),
        ("BraTS-GLI-00001-001", "d9", {}, "another visit of the held-out case"),
        ("BraTS-GLI-00002-000", "d9", {}, None),
        ("mine", "d9", {}, None),  # another hospital's patient of the same name
        ("a", "d9", {"cubes": {"left_out": ["P2"]}}, "lesion cubes or slices of the held-out"),
        ("a", "d9", {"single_slices": {"left_out": []}}, "lesion cubes or slices of the held-out"),
        ("a", "d9", {"cubes": {"left_out": ["P1"]}, "single_slices": None}, None),
        ("b", "d9", {"cubes": {"left_out": []}}, None),
    ],
)
def test_a_model_must_not_have_seen_a_held_out_patient(
    tmp_path: Path, case: str, digest: str, training: dict[str, Any], message: str | None
) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,lesion_patient\na,P1\nb,\n")
    given = ("--from", Path("base"), card_of(**training), held_out(case, digest), table)
    if message is None:
        check_unseen(*given)
        return
    with pytest.raises(GliosliceError, match=f"--from base: was trained on {message}"):
        check_unseen(*given)
