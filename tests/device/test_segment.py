"""Volume to masks, the one inference path, and its command."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from device.engine import Engine
from device.segment import segment
from glioslice.cases import find_case, read_case
from glioslice.errors import GliosliceError
from glioslice.metrics import region_dice
from glioslice.model_card import Card, read_card, shipped
from glioslice.phantom.head import SEEDS, make_phantom
from tests.conftest import ROOT, Write

PRODUCTS = [
    shipped("nano") / "nano-int8.tflite",
    shipped("nano") / "nano-fp16.tflite",
    shipped("compact") / "compact-int8.tflite",
]


class Bright:
    """A network that calls bright FLAIR tumour: its masks say where each slice ended up."""

    card: Card = read_card(shipped("nano"))

    def run(self, z_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        return np.stack([z_scores[..., 0] > 3.0] * 3)


def test_masks_land_on_the_voxels_they_came_from(
    volumes: tuple[NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    images, _ = volumes
    images = images.copy()
    images[0, 9:12, 8:11, 6:9] = 5000
    result = segment(images, Bright())
    np.testing.assert_array_equal(result.labels == 3, images[0] == 5000)
    assert len(result.milliseconds) == 14  # slices with brain


def test_a_case_without_brain_is_refused() -> None:
    with pytest.raises(GliosliceError, match="no brain"):
        segment(np.zeros((4, 20, 20, 20), np.float32), Bright())


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_shipped_models_find_the_whole_tumour_of_a_phantom(seed: int) -> None:
    phantom = make_phantom(seed)
    for model in PRODUCTS:
        labels = segment(phantom.images, Engine(model)).labels
        assert region_dice(labels, phantom.labels)["WT"] >= 0.7, model.name


@pytest.mark.slow
def test_shipped_models_find_no_tumour_in_a_healthy_phantom() -> None:
    assert len(SEEDS) == 10
    healthy = make_phantom(0, tumour=False)
    for model in PRODUCTS:
        assert np.count_nonzero(segment(healthy.images, Engine(model)).labels) < 2000  # 2 mL


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "device.segment", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_leaves_mask_montage_and_summary(write_case: Write, tmp_path: Path) -> None:
    folder = write_case()
    done = command("--input", folder, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "segmenting Case_1: 14 of 14" in done.stderr
    for words in ("p50", "p90", "p99", "volumes in mL: WT", "no medical device"):
        assert words in done.stdout
    mask = nib.Nifti1Image.from_filename(tmp_path / "out" / "mask.nii.gz")
    source = nib.Nifti1Image.from_filename(folder / "Case_1_t1.nii.gz")
    np.testing.assert_array_equal(mask.affine, source.affine)
    assert mask.shape == source.shape
    assert (tmp_path / "out" / "montage.png").stat().st_size > 1000
    expected = segment(
        read_case(find_case(folder)).images, Engine(shipped("compact") / "compact-int8.tflite")
    ).labels
    written = np.asarray(mask.dataobj)
    np.testing.assert_array_equal(written, np.array([0, 1, 2, 4])[expected])


def test_bad_words_end_with_one_line(tmp_path: Path) -> None:
    done = command("--input", tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'none'}: no such folder\n"
    assert "python -m device.segment --input" in command("--help").stdout
