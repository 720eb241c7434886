"""The committed goldens are what the shipped files make of the golden slices here."""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest

from device.engine import REFERENCE, Engine
from device.goldens import GOLDENS, compute_masks, golden_key, golden_slices, read_goldens
from glioslice.cases import phantom_case
from glioslice.files import read_json, sha256, write_json
from glioslice.model_card import SHIPPED_MODELS, shipped_folder
from glioslice.preprocessing import slice_volume
from tools import goldens
from tools.goldens import EVERY, PHANTOM, SLICES, write_golden_masks


@pytest.mark.parametrize("size", SHIPPED_MODELS)
def test_shipped_files_find_what_is_committed(size: str) -> None:
    file = shipped_folder(size) / f"{size}-int8.tflite"
    committed = read_goldens(shipped_folder(size), (160, 192))
    assert (committed.file, committed.sha256) == (file.name, sha256(file))
    for mirroring in (False, True):
        engine = Engine(file, mirroring=mirroring)
        masks = compute_masks(engine, golden_slices(engine, SLICES))
        np.testing.assert_array_equal(masks, committed.masks[golden_key(engine)])


@pytest.mark.slow
@pytest.mark.parametrize("size", SHIPPED_MODELS)
@pytest.mark.parametrize("mirroring", [False, True])
def test_the_reference_kernels_find_what_is_committed(size: str, mirroring: bool) -> None:
    file = shipped_folder(size) / f"{size}-int8.tflite"
    engine = Engine(file, reference=True, mirroring=mirroring)
    committed = read_goldens(shipped_folder(size), engine.card.window)
    masks = compute_masks(engine, golden_slices(engine, SLICES))
    np.testing.assert_array_equal(masks, committed.masks[golden_key(engine)])
    assert (masks > 0).sum() > 1000


@pytest.mark.slow
def test_the_golden_slices_are_the_phantoms() -> None:
    """Another processor's exponential may move a voxel by a step."""
    engine = Engine(shipped_folder("nano") / "nano-int8.tflite")
    golden = golden_slices(engine, SLICES)
    slices, _ = slice_volume(phantom_case(PHANTOM).images, engine.card.window, engine.card.clip)
    made = np.stack([engine.prepare(one) for one in slices[EVERY // 2 :: EVERY]])
    assert len(golden) >= 5
    assert abs(made.astype(int) - golden).max() <= 1
    assert (made != golden).mean() < 1e-3


def test_goldens_of_other_runtimes_are_kept_with_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = np.zeros((5, 160, 192), np.uint8)
    monkeypatch.setattr(goldens, "compute_masks", lambda *_: empty)  # reference kernels are slow
    folder = tmp_path / "nano"
    shutil.copytree(shipped_folder("nano"), folder)
    for digest, kept in ((None, True), ("of other weights", False)):
        old = read_json(folder / GOLDENS)
        old["masks"]["another 1.0, XNNPACK"] = old["masks"][REFERENCE]
        old["sha256"] = digest or old["sha256"]
        write_json(folder / GOLDENS, old)
        write_golden_masks(argparse.Namespace(folder=folder))
        assert ("another 1.0, XNNPACK" in read_json(folder / GOLDENS)["masks"]) == kept
