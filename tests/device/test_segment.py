"""Volume to masks, the one inference path, and its command."""

import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from device.engine import Engine
from device.segment import main, segment
from glioslice.cases import read_case
from glioslice.errors import GliosliceError
from glioslice.metrics import region_dice
from glioslice.model_card import Card, read_card, shipped_folder
from glioslice.phantom.head import SEEDS, make_phantom
from tests.conftest import ROOT, Write

PRODUCTS = [
    shipped_folder("nano") / "nano-int8.tflite",
    shipped_folder("nano") / "nano-fp16.tflite",
    shipped_folder("compact") / "compact-int8.tflite",
]


class BrightFlair:
    """A network that labels bright FLAIR as tumour, to show where each slice ended up."""

    card: Card = read_card(shipped_folder("nano"))

    def run(self, z_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        return np.stack([z_scores[..., 0] > 3.0] * 3)


def test_masks_are_placed_on_the_voxels_of_their_slices(
    volumes: tuple[NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    images, _ = volumes
    images = images.copy()
    images[0, 9:12, 8:11, 6:9] = 5000
    result = segment(images, BrightFlair(), raw=True)
    np.testing.assert_array_equal(result.labels == 3, images[0] == 5000)
    assert len(result.milliseconds) == 14  # slices with brain


def test_a_case_without_brain_is_refused() -> None:
    with pytest.raises(GliosliceError, match="no brain"):
        segment(np.zeros((4, 20, 20, 20), np.float32), BrightFlair())


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
        # 2 mL was the limit for networks that were not trained on resampled scans.
        assert np.count_nonzero(segment(healthy.images, Engine(model)).labels) < 2500  # 2.5 mL


@dataclass(frozen=True)
class Ended:
    """How the command ended."""

    returncode: int
    stdout: str
    stderr: str


def run_segment(*options: object) -> Ended:
    """Run the command in this process, which has its imports already."""
    code, out, err = 0, StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(option) for option in options])
        except SystemExit as end:
            code = int(end.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


@pytest.mark.slow
def test_the_command_as_a_process_prints_nothing_of_the_runtime(
    write_case: Write, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "device.segment", str(write_case()), "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "segmenting Case_1: 14 of 14" in done.stderr
    assert "Created TensorFlow" not in done.stderr


@pytest.mark.parametrize("option", [(), ("--input",)])
def test_the_command_writes_mask_and_montage_and_prints_a_summary(
    option: tuple[str, ...], write_case: Write, tmp_path: Path
) -> None:
    folder = write_case()
    done = run_segment("--out", tmp_path / "out", *option, folder)
    assert done.returncode == 0, done.stderr
    assert "segmenting Case_1: 14 of 14" in done.stderr
    for fact in ("compact-int8.tflite", "p99", "mL", "medical device"):
        assert fact in done.stdout
    mask = nib.Nifti1Image.from_filename(tmp_path / "out" / "Case_1-mask.nii.gz")
    source = nib.Nifti1Image.from_filename(folder / "Case_1_t1.nii.gz")
    np.testing.assert_array_equal(mask.affine, source.affine)
    assert mask.shape == source.shape
    assert (tmp_path / "out" / "Case_1-mask.png").stat().st_size > 1000
    expected = segment(
        read_case(folder).images, Engine(shipped_folder("compact") / "compact-int8.tflite")
    ).labels
    written = np.asarray(mask.dataobj)
    np.testing.assert_array_equal(written, np.array([0, 1, 2, 4])[expected])


def test_a_folder_of_cases_continues_after_a_failed_case(write_case: Write, tmp_path: Path) -> None:
    for name in ("A", "B", "C"):
        folder = write_case(name, folder=tmp_path / "cases")
    (tmp_path / "cases" / "A" / "A_t2.nii.gz").unlink()  # it may be missing
    (tmp_path / "cases" / "B" / "B_t1ce.nii.gz").unlink()
    out = tmp_path / "out"
    done = run_segment(tmp_path / "cases", "--out", out, "--model", "nano")
    assert done.returncode == 2
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(folder.with_name("B")) in error
    assert "warning: A: T2 is missing" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        f"{name}-mask.{suffix}" for name in ("A", "C") for suffix in ("nii.gz", "png")
    ]


@pytest.mark.slow
def test_a_second_case_of_the_same_name_is_not_written_over_the_first(
    write_case: Write, tmp_path: Path
) -> None:
    one, two = (write_case("A", folder=tmp_path / folder) for folder in ("one", "two"))
    done = run_segment(one, two, "--out", tmp_path / "out")
    assert done.returncode == 2
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: {two}: has the name of {one}")
    assert "1 of 2 cases segmented" in done.stdout


def test_a_folder_that_takes_no_file_is_refused_before_segmenting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_segment("--out", tmp_path / "file")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path / 'file'}: no file can be written here")


def test_a_missing_case_is_bad_input(tmp_path: Path) -> None:
    done = run_segment(tmp_path / "none")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'none'}")


def test_a_batch_ends_with_what_could_be_done(write_case: Write, tmp_path: Path) -> None:
    """Ten cases, five of them bad in different ways: five masks, a line for each of the others."""
    cases = tmp_path / "cases"
    folders = [write_case(f"C{index}", folder=cases) for index in range(10)]
    colour = np.zeros((28, 36, 20), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(colour, np.diag([-1.0, -1, 1, 1])), folders[1] / "C1_flair.nii.gz")
    (folders[3] / "C3_t1.nii.gz").write_bytes(b"x")
    (folders[5] / "C5_t1ce.nii.gz").unlink()
    empty = nib.Nifti1Image(np.zeros((28, 36, 20), np.int16), np.diag([-1.0, -1, 1, 1]))
    for modality in ("flair", "t1", "t1ce", "t2"):
        nib.save(empty, folders[7] / f"C7_{modality}.nii.gz")
    moved = nib.Nifti1Image(np.ones((28, 36, 20), np.int16), np.diag([-1.0, -1, 2, 1]))
    nib.save(moved, folders[9] / "C9_t1ce.nii.gz")
    done = run_segment(cases, "--out", tmp_path / "out", "--model", "nano")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for index, line in zip((1, 3, 5, 7, 9), errors, strict=True):
        assert f"C{index}" in line
    assert "5 of 10 cases segmented" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [
        f"C{index}-mask.nii.gz" for index in (0, 2, 4, 6, 8)
    ]


def test_a_mask_of_another_run_is_not_overwritten(write_case: Write, tmp_path: Path) -> None:
    (tmp_path / "Case_1-mask.nii.gz").write_bytes(b"somebody's")
    options = (write_case(), "--out", tmp_path, "--model", "nano")
    done = run_segment(*options)
    assert done.returncode == 2
    assert "already exists" in done.stderr.splitlines()[-1]
    assert (tmp_path / "Case_1-mask.nii.gz").read_bytes() == b"somebody's"
    assert not (tmp_path / "Case_1-mask.png").exists()
    assert run_segment(*options, "--force").returncode == 0
    assert (tmp_path / "Case_1-mask.nii.gz").read_bytes() != b"somebody's"


def test_four_files_and_their_orientation_by_option(write_case: Write, tmp_path: Path) -> None:
    folder = write_case()
    files = [
        option
        for modality in ("flair", "t1", "t1ce", "t2")
        for option in (f"--{modality}", folder / f"Case_1_{modality}.nii.gz")
    ]
    done = run_segment(*files, "--orientation", "LPS", "--out", tmp_path / "out", "--model", "nano")
    assert done.returncode == 0, done.stderr
    assert "warning: Case_1: " in done.stderr  # the made-up brain is a box
    assert (tmp_path / "out" / "Case_1-mask.nii.gz").is_file()
    assert run_segment(folder, *files).returncode == 2
