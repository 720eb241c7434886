"""Masks in every label scheme, read back by other programs, and compared."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nilearn.image import load_img
from numpy.typing import NDArray

from firmware_host import compare
from firmware_host.mask_files import NAMED_SCHEMES, encode_labels, read_mask, scheme_name
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS, to_regions
from glioslice.metrics import hd95, region_dice, volumes_ml
from glioslice.nifti import Space, write_mask
from tests.conftest import LPS, Write, save

Volumes = tuple[NDArray[np.float32], NDArray[np.uint8]]
FORMS = (*NAMED_SCHEMES, "regions")
AFFINES = {
    "as we have it": LPS,
    "mirrored": np.array([[1, 0, 0, -20], [0, 1, 0, 3], [0, 0, -1, 9], [0, 0, 0, 1.0]]),
    "turned": np.array([[0, 0, -1, 9], [1, 0, 0, -40], [0, 1, 0, 7], [0, 0, 0, 1.0]]),
}


def space_of(
    labels: NDArray[np.uint8], affine: NDArray[np.float64], forms: tuple[int, int]
) -> Space:
    """The space of a file with this affine whose voxels, turned to LPS, have the labels' shape."""
    shape = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), affine)
    turned = Space.from_affine((1, 1, 1), shape.affine, forms).from_lps(labels)
    return Space.from_affine((turned.shape[0], turned.shape[1], turned.shape[2]), affine, forms)


def guess(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another mask, which differs from the first in every region."""
    return np.asarray(np.roll(labels, (1, 2, 0), (0, 1, 2)))


def dice_of(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def regions_of(values: NDArray[np.uint8], form: str) -> NDArray[np.bool_]:
    """The regions in a file, by the definition of its edition."""
    if form == "regions":
        return np.moveaxis(values, -1, 0) > 0
    edema = {"brats2018": 2, "brats2023": 2, "msd": 1}[form]
    enhancing = {"brats2018": 4, "brats2023": 3, "msd": 3}[form]
    return np.stack([values > 0, (values > 0) & (values != edema), values == enhancing])


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("form", FORMS)
def test_other_programs_read_the_same_mask(
    form: str, name: str, volumes: Volumes, tmp_path: Path
) -> None:
    labels = volumes[1]
    space = space_of(labels, AFFINES[name], (1, 2))
    ours, truth = tmp_path / "ours.nii.gz", tmp_path / "truth.nii.gz"
    write_mask(ours, encode_labels(guess(labels), form), space)
    write_mask(truth, encode_labels(labels, form), space)
    wanted = region_dice(guess(labels), labels)

    image = nib.Nifti1Image.from_filename(ours)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(image.affine, AFFINES[name])
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 2)
    np.testing.assert_allclose(image.header.get_qform(), AFFINES[name], atol=1e-6)

    by_nibabel = [np.asarray(nib.Nifti1Image.from_filename(p).dataobj) for p in (ours, truth)]
    by_nilearn = [np.asarray(load_img(str(p)).dataobj) for p in (ours, truth)]
    np.testing.assert_array_equal(load_img(str(ours)).affine, AFFINES[name])
    read = [sitk.ReadImage(str(p)) for p in (ours, truth)]
    by_sitk = [sitk.GetArrayFromImage(image).T for image in read]  # its arrays begin with Z
    np.testing.assert_allclose(affine_of(read[0]), AFFINES[name], atol=1e-6)
    for one, other in (by_nibabel, by_nilearn, by_sitk):
        pairs = zip(REGIONS, regions_of(one, form), regions_of(other, form), strict=True)
        for region, a, b in pairs:
            assert dice_of(a, b) == pytest.approx(wanted[region], abs=1e-6), region


def affine_of(image: sitk.Image) -> NDArray[np.float64]:
    """Return SimpleITK's geometry, which is in LPS, as an affine in RAS."""
    size = image.GetDimension()
    direction = np.reshape(image.GetDirection(), (size, size))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


@pytest.mark.parametrize("form", FORMS)
def test_the_way_back(form: str, volumes: Volumes, tmp_path: Path) -> None:
    labels, path = volumes[1], tmp_path / "m.nii.gz"
    write_mask(path, encode_labels(labels, form), space_of(labels, AFFINES["turned"], (1, 1)))
    read, space, scheme = read_mask(path, form)
    np.testing.assert_array_equal(read, labels)
    assert scheme == form
    np.testing.assert_array_equal(space.affine, AFFINES["turned"])
    if form != "msd":  # the only one that its labels do not identify
        assert read_mask(path)[2] == form
        np.testing.assert_array_equal(read_mask(path)[0], labels)


def test_the_scheme_is_recognised(volumes: Volumes, write_case: Write, tmp_path: Path) -> None:
    labels = volumes[1]
    space = space_of(labels, LPS, (1, 1))
    write_mask(tmp_path / "labelsTr" / "a.nii.gz", encode_labels(labels, "msd"), space)
    assert read_mask(tmp_path / "labelsTr" / "a.nii.gz")[2] == "msd"
    assert read_mask(write_case() / "Case_1_seg.nii.gz")[2] == "brats2018"
    for name in NAMED_SCHEMES:
        assert scheme_name(NAMED_SCHEMES[name]) == name
    write_mask(tmp_path / "m.nii.gz", encode_labels(labels, "msd"), space)
    with pytest.raises(GliosliceError, match=r"m.nii.gz: read as brats2023, .*--labels"):
        read_mask(tmp_path / "m.nii.gz")


def test_an_image_given_as_a_mask_lists_a_few_values(tmp_path: Path) -> None:
    write_mask(
        tmp_path / "m.nii.gz", np.arange(64, dtype=np.uint8).reshape(4, 4, 4), Space.lps((4, 4, 4))
    )
    with pytest.raises(GliosliceError, match="holds 1 2 3 4 5 6 7 8 9 10 and 53 more, which are"):
        read_mask(tmp_path / "m.nii.gz")


@pytest.mark.parametrize(
    ("values", "form", "expected"),
    [
        ({3: 5}, None, "holds 1 2 5, which are labels of no known scheme"),
        ({3: 4}, "brats2023", "holds the labels 1 2 4, but brats2023 has 1 2 3"),
        ({3: 3}, "brats2018", "holds the labels 1 2 3, but brats2018 has 1 2 4"),
    ],
)
def test_labels_that_do_not_fit(
    values: dict[int, int], form: str | None, expected: str, volumes: Volumes, tmp_path: Path
) -> None:
    table = np.arange(4, dtype=np.uint8)
    table[list(values)] = list(values.values())
    path = save(tmp_path / "m.nii.gz", table[volumes[1]])
    with pytest.raises(GliosliceError, match=expected):
        read_mask(path, form)


def test_scores(volumes: Volumes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = volumes[1]
    space = space_of(labels, LPS, (1, 1))
    mask, truth = tmp_path / "m.nii.gz", tmp_path / "Case-seg.nii.gz"
    write_mask(mask, encode_labels(guess(labels), "brats2018"), space)
    write_mask(truth, encode_labels(labels, "brats2023"), space)
    compare.main([str(mask), str(truth), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == {"mask": "brats2018", "truth": "brats2023"}
    assert found["dice"] == region_dice(guess(labels), labels)
    assert found["volumes_ml"] == {"mask": volumes_ml(guess(labels)), "truth": volumes_ml(labels)}
    pairs = zip(REGIONS, to_regions(guess(labels)), to_regions(labels), strict=True)
    assert found["hd95_mm"] == {region: hd95(a, b) for region, a, b in pairs}
    compare.main([str(mask), str(truth)])
    table = capsys.readouterr().out
    assert f"{found['dice']['ET']:.4f}" in table
    assert "brats2018" in table


def test_a_region_that_only_one_has(
    volumes: Volumes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = volumes[1]
    space = space_of(labels, LPS, (1, 1))
    for name, held in (("a", labels), ("b", np.where(labels == 3, np.uint8(1), labels))):
        write_mask(tmp_path / f"{name}-seg.nii.gz", encode_labels(held, "brats2023"), space)
    compare.main([str(tmp_path / "a-seg.nii.gz"), str(tmp_path / "b-seg.nii.gz")])
    assert "373.13: only one of the two" in capsys.readouterr().out


def test_files_named_after_different_cases(
    volumes: Volumes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = volumes[1]
    names = ("a-mask.nii.gz", "a_seg.nii.gz", "b_seg.nii.gz", "a/b_seg.nii.gz", "any.nii.gz")
    for name in names:
        mask = encode_labels(labels, "brats2018")
        write_mask(tmp_path / name, mask, space_of(labels, LPS, (1, 1)))
        compare.main([str(tmp_path / "a-mask.nii.gz"), str(tmp_path / name)])
        warned = "b_seg.nii.gz of b" in capsys.readouterr().err
        assert warned == (name == "b_seg.nii.gz")


def test_files_that_cannot_be_compared(
    volumes: Volumes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = volumes[1]
    shifted = LPS.copy()
    shifted[0, 3] = 5
    masks = {
        "a.nii.gz": (labels, LPS),
        "short.nii.gz": (labels[:-1], LPS),
        "moved.nii.gz": (labels, shifted),
    }
    for name, (held, affine) in masks.items():
        write_mask(tmp_path / name, held, space_of(held, affine, (1, 1)))
    (tmp_path / "text.nii.gz").write_text("no mask")
    for name, expected in (
        ("short.nii.gz", "shape (28, 36, 20), but"),
        ("moved.nii.gz", "affine differs"),
        ("text.nii.gz", "text.nii.gz: "),
        ("none.nii.gz", "no such file"),
    ):
        with pytest.raises(SystemExit) as end:
            compare.main([str(tmp_path / "a.nii.gz"), str(tmp_path / name)])
        assert end.value.code == 2
        printed = capsys.readouterr().err
        assert printed.startswith("error: ") and expected in printed, printed
        assert len(printed.splitlines()) == 1
