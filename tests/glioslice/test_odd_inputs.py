"""Kinds of input that gave a wrong result without a word, or a traceback.

Each is read right, or read with a warning that says what may be wrong, or refused in one line.
"""

import gzip
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from glioslice import check, dataset_layouts, nifti
from glioslice.cases import case_name, case_paths, find_case, find_cases, read_case
from glioslice.dataset_layouts import MODALITIES, given_case
from glioslice.errors import GliosliceError
from glioslice.files import is_dicom
from glioslice.labels import BRATS_2018 as SCHEME_2018
from glioslice.labels import DECATHLON
from glioslice.preprocessing import slice_volume
from glioslice.sanity_checks import find_warnings
from tests.conftest import BRATS_2023, LPS, Write, save

DICOM = bytes(128) + b"DICM"

Volumes = tuple[NDArray[np.float32], NDArray[np.uint8]]


def new_warnings(images: NDArray[np.float32], before: NDArray[np.float32]) -> list[str]:
    """Return the warnings about images that there were not before they were damaged."""
    return [warning for warning in find_warnings(images) if warning not in find_warnings(before)]


def test_unsigned_values_read_as_signed(volumes: Volumes) -> None:
    images = volumes[0].copy()
    top = np.quantile(images[0][images[0] > 0], 0.99)
    wrapped = np.rint(images[0] * (32767 / top)).astype(np.int64).astype(np.uint16)
    images[0] = wrapped.view(np.int16)
    assert any("FLAIR" in w and "unsigned" in w for w in new_warnings(images, volumes[0]))


@pytest.mark.parametrize("value", [1e6, -1e6, 1e30])
def test_a_wild_voxel_does_not_flatten_the_others(volumes: Volumes, value: float) -> None:
    images = volumes[0].copy()
    images[1, 10, 12, 8] = value
    expected, crop = slice_volume(volumes[0])
    slices, _ = slice_volume(images)
    place = (8 - crop.z[0], 10 - crop.origin[0], 12 - crop.origin[1])
    slices[place] = expected[place]
    np.testing.assert_allclose(slices, expected, atol=2e-3)
    warnings = new_warnings(images, volumes[0])
    assert any("T1 has 1 voxel far from all others" in warning for warning in warnings)


def test_a_rim_of_interpolation(volumes: Volumes) -> None:
    images = volumes[0].copy()
    brain = images[0] > 0
    rim = np.zeros_like(brain)
    for axis in range(3):
        for step in (-2, 2):
            rim |= np.roll(brain, step, axis)
    rim &= ~brain
    images[:, rim] = np.random.default_rng(0).normal(0, 3, (4, np.count_nonzero(rim)))
    warnings = new_warnings(images, volumes[0])
    assert sum("interpolation leaves such a rim" in warning for warning in warnings) == 4


def test_a_wrong_sign(volumes: Volumes) -> None:
    images = volumes[0].copy()
    images[3, 4:8] *= -1
    assert any("T2 is negative" in warning for warning in new_warnings(images, volumes[0]))


def test_z_scores_are_no_damage(volumes: Volumes) -> None:
    images = volumes[0].copy()
    brain = images[0] > 0
    for image in images:
        image[brain] = (image[brain] - image[brain].mean()) / image[brain].std()
    assert not any("negative" in w or "below 0" in w for w in find_warnings(images))


def bare(path: Path) -> None:
    """Remove the orientation from a file's header."""
    image = nib.Nifti1Image.from_filename(path)
    without = nib.Nifti1Image(np.asanyarray(image.dataobj), None)
    without.header["qform_code"] = without.header["sform_code"] = 0
    nib.save(without, path)


def test_no_orientation(write_case: Write, volumes: Volumes, tmp_path: Path) -> None:
    folder = write_case()
    for path in folder.iterdir():
        bare(path)
    [warning] = read_case(folder).warnings
    assert "no orientation" in warning
    assert "LAS" in warning
    case = read_case(folder, orientation="LPS")
    assert case.warnings == ()
    np.testing.assert_array_equal(case.images, volumes[0])
    assert case.labels is not None
    np.testing.assert_array_equal(case.labels, volumes[1])
    nifti.write_mask(tmp_path / "mask.nii.gz", case.labels, case.space)
    written = nib.Nifti1Image.from_filename(tmp_path / "mask.nii.gz")
    source = nib.Nifti1Image.from_filename(folder / "Case_1_seg.nii.gz")
    np.testing.assert_array_equal(written.affine, source.affine)  # the mask lies on the image
    for wrong in ("LPX", "LLS", "LP", ""):
        with pytest.raises(GliosliceError, match="is not an orientation"):
            read_case(folder, orientation=wrong or "?")


def test_an_orientation_that_is_stated_is_kept(write_case: Write, volumes: Volumes) -> None:
    case = read_case(write_case(), orientation="RAS")
    np.testing.assert_array_equal(case.images, volumes[0])


AFTER_TREATMENT = np.array([0, 1, 2, 3], np.uint8)
CHILDREN = np.array([0, 2, 4, 1], np.uint8)


def test_labels_of_2024_after_treatment(write_case: Write, volumes: Volumes) -> None:
    folder = write_case("BraTS-GLI-00001-100", BRATS_2023, 3)
    mask = AFTER_TREATMENT[volumes[1]]
    mask[21:23, 9:12, 6:9] = 4  # the resection cavity
    save(folder / f"{folder.name}-seg.nii.gz", mask)
    case = read_case(folder)
    assert case.labels is None
    assert "brats2024 or brats2024-children would fit" in str(case.mask_problem)
    named = read_case(folder, labels="brats2024")
    assert named.labels is not None
    np.testing.assert_array_equal(named.labels, volumes[1])


def test_labels_of_2024_of_children(write_case: Write, volumes: Volumes) -> None:
    folder = write_case("BraTS-PED-00001-000", BRATS_2023, 3)
    save(folder / f"{folder.name}-seg.nii.gz", CHILDREN[volumes[1]])
    case = read_case(folder)
    assert case.labels is not None
    np.testing.assert_array_equal(case.labels, volumes[1])
    no_edema = np.where(volumes[1] == 2, np.uint8(0), CHILDREN[volumes[1]])
    save(folder / f"{folder.name}-seg.nii.gz", no_edema)
    assert "brats2024-children" in str(read_case(folder).mask_problem)
    named = read_case(folder, labels="brats2024-children")
    assert named.labels is not None
    np.testing.assert_array_equal(named.labels, np.where(volumes[1] == 2, 0, volumes[1]))


@pytest.mark.parametrize("kind", ["rgb", "complex"])
def test_voxels_that_are_no_real_numbers(write_case: Write, volumes: Volumes, kind: str) -> None:
    folder = write_case()
    if kind == "rgb":
        voxels = np.zeros(volumes[1].shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    else:
        voxels = volumes[0][1].astype(np.complex64)
    nib.save(nib.Nifti1Image(voxels, LPS), folder / "Case_1_t1.nii.gz")
    with pytest.raises(GliosliceError, match=r"Case_1_t1.nii.gz: its voxels are"):
        read_case(folder)


@pytest.mark.parametrize("kind", ["u8", "near4"])
def test_labels_that_are_whole_but_for_rounding(
    write_case: Write, volumes: Volumes, kind: str
) -> None:
    folder = write_case()
    mask = np.where(volumes[1] == 3, 4, volumes[1])
    image = nib.Nifti1Image(mask.astype(np.float64), LPS)
    if kind == "u8":
        image.set_data_dtype(np.uint8)
    else:
        near = mask.astype(np.float32)
        near[near == 4] = np.float32(3.999999)
        image = nib.Nifti1Image(near, LPS)
    nib.save(image, folder / "Case_1_seg.nii.gz")
    case = read_case(folder)
    assert case.labels is not None
    np.testing.assert_array_equal(case.labels, volumes[1])


@pytest.mark.parametrize("which", ["seg", "t2"])
def test_another_order_of_axes_at_the_same_place(
    write_case: Write, volumes: Volumes, which: str
) -> None:
    folder = write_case()
    path = folder / f"Case_1_{which}.nii.gz"
    nib.save(nib.as_closest_canonical(nib.Nifti1Image.from_filename(path)), path)
    assert nib.aff2axcodes(nib.Nifti1Image.from_filename(path).affine) == ("R", "A", "S")
    case = read_case(folder)
    np.testing.assert_array_equal(case.images, volumes[0])
    assert case.labels is not None
    np.testing.assert_array_equal(case.labels, volumes[1])
    assert case.warnings == ()


@pytest.mark.parametrize("value", [-1.0, 7.5, np.nan])
def test_a_constant_background(write_case: Write, volumes: Volumes, value: float) -> None:
    folder = write_case()
    image = np.where(volumes[0][0] == 0, np.float32(value), volumes[0][0])
    save(folder / "Case_1_flair.nii.gz", image)
    case = read_case(folder)
    np.testing.assert_array_equal(case.images, volumes[0])
    [warning] = case.warnings
    assert "background of flair" in warning


TASK01 = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
LABELS = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
REGIONS = {
    "background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("description", "warnings"),
    [
        ({"modality": TASK01, "labels": LABELS}, 0),
        ({"channel_names": TASK01, "labels": {v: int(k) for k, v in LABELS.items()}}, 0),
        ({"modality": list(TASK01.values()), "labels": LABELS}, 0),
        ({"modality": TASK01, "labels": list(LABELS.values())}, 0),
        ({"channel_names": TASK01, "labels": REGIONS}, 0),
        ({"modality": "MRI", "labels": LABELS}, 1),
        ({"modality": TASK01}, 1),
        ({}, 2),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_dataset_json_as_people_write_it(
    tmp_path: Path, volumes: Volumes, description: dict[str, Any], warnings: int, mark: bytes
) -> None:
    images, labels = volumes
    save(tmp_path / "imagesTr" / "A.nii.gz", np.moveaxis(images, 0, -1))
    save(tmp_path / "labelsTr" / "A.nii.gz", np.array([0, 2, 1, 3], np.uint8)[labels])
    (tmp_path / "dataset.json").write_bytes(mark + json.dumps(description).encode())
    case = read_case(tmp_path)
    np.testing.assert_array_equal(case.images, images)
    assert case.scheme is DECATHLON
    assert case.labels is not None
    np.testing.assert_array_equal(case.labels, labels)
    assert len(case.warnings) == warnings


def test_dataset_json_gives_the_order(tmp_path: Path, volumes: Volumes) -> None:
    images, _ = volumes
    save(tmp_path / "imagesTr" / "A.nii.gz", np.moveaxis(images[[1, 2, 3, 0]], 0, -1))
    order = {"0": "T1w", "1": "t1gd", "2": "T2w", "3": "FLAIR"}
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": order, "labels": LABELS}))
    np.testing.assert_array_equal(read_case(tmp_path).images, images)


def test_nnunet(tmp_path: Path, volumes: Volumes) -> None:
    order = {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"}
    for name in ("A", "B"):
        for index, place in enumerate((1, 2, 3, 0)):
            save(tmp_path / "imagesTr" / f"{name}_{index:04}.nii.gz", volumes[0][place])
    save(tmp_path / "labelsTr" / "A.nii.gz", np.array([0, 2, 1, 3], np.uint8)[volumes[1]])
    channel = tmp_path / "imagesTr" / "A_0002.nii.gz"
    with pytest.raises(GliosliceError, match=r"order of nnU-Net's channels is not known"):
        find_case(channel)
    description = {"channel_names": order, "labels": REGIONS}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    for source in (channel, find_cases(tmp_path)[0], find_cases(tmp_path / "imagesTr")[0]):
        case = read_case(source)
        assert (case.name, case.scheme, case.warnings) == ("A", DECATHLON, ())
        np.testing.assert_array_equal(case.images, volumes[0])
        assert case.labels is not None
        np.testing.assert_array_equal(case.labels, volumes[1])
    assert [files.name for files in find_cases(tmp_path)] == ["A", "B"]
    (tmp_path / "imagesTr" / "B_0001.nii.gz").unlink()
    with pytest.raises(GliosliceError, match=r"B_0001 \(t1ce\) is missing"):
        find_cases(tmp_path)


NAMES = {
    "plain": ("flair", "t1", "t1ce", "t2", "seg"),
    "gd": ("X_FLAIR", "X_T1w", "X_T1gd", "X_T2w", "X_seg"),
    "short": ("t2f", "t1n", "t1c", "t2w", "seg"),
    "anat": ("sub-1_FLAIR", "sub-1_T1w", "sub-1_ce-gd_T1w", "sub-1_T2w", "sub-1_dseg"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_no_edition(tmp_path: Path, volumes: Volumes, kind: str) -> None:
    images, labels = volumes
    folder = tmp_path / "sub-1" / kind
    for name, image in zip(NAMES[kind], images, strict=False):
        save(folder / f"{name}.nii.gz", image)
    save(folder / f"{NAMES[kind][4]}.nii.gz", np.where(labels == 3, np.uint8(4), labels))
    case = read_case(tmp_path / "sub-1")
    assert case.name == {"gd": "X", "anat": "sub-1"}.get(kind, kind)
    np.testing.assert_array_equal(case.images, images)
    assert case.scheme is SCHEME_2018  # only it has the label 4
    assert case.labels is not None
    np.testing.assert_array_equal(case.labels, labels)


def test_files_named_one_by_one(tmp_path: Path, volumes: Volumes) -> None:
    files = {
        modality: save(tmp_path / f"scan{index}.nii.gz", image)
        for index, (modality, image) in enumerate(zip(MODALITIES, volumes[0], strict=True))
    }
    np.testing.assert_array_equal(read_case(given_case(files)).images, volumes[0])
    del files["t2"]
    with pytest.raises(GliosliceError, match="--t2"):
        given_case(files)


def test_a_modality_or_a_folder_of_cases_in_place_of_a_case(write_case: Write) -> None:
    folder = write_case()
    with pytest.raises(GliosliceError, match=rf"one modality \(t1\) of a case; .*{folder}"):
        find_case(folder / "Case_1_t1.nii.gz")
    with pytest.raises(GliosliceError, match=r"a mask of a case"):
        find_case(folder / "Case_1_seg.nii.gz")
    write_case("Case_2")
    with pytest.raises(GliosliceError, match="2 cases inside"):
        find_case(folder.parent)


def test_a_study_of_a_scanner_in_place_of_a_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, looked_at = tmp_path / "study", list[str]()
    for number, content in enumerate((b"notes", DICOM, DICOM, DICOM)):
        path = study / "a" / f"series {number}" / f"IM{number}"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)

    def look_at(file: Path) -> bool:
        looked_at.append(file.name)
        return is_dicom(file)

    monkeypatch.setattr(dataset_layouts, "is_dicom", look_at)
    for find in (find_case, case_paths, find_cases):
        looked_at.clear()
        with pytest.raises(GliosliceError, match=f"{study}: .*DICOM.*IM1; .*glioslice prepare"):
            find(study)
        assert set(looked_at) == {"IM0", "IM1"}  # not one more than needed
    with pytest.raises(GliosliceError, match=r"IM2: a DICOM file; .*glioslice prepare"):
        find_case(study / "a" / "series 2" / "IM2")
    with pytest.raises(GliosliceError, match=r"a DICOM file; .*glioslice prepare"):
        nifti.open_nifti(path)
    with pytest.raises(SystemExit) as end:
        check.main([str(study)])
    assert end.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "glioslice prepare" in line
    monkeypatch.setattr(dataset_layouts, "LOOKED_AT", 1)
    with pytest.raises(GliosliceError, match="no case found"):  # an archive of something else
        case_paths(study)


def test_the_downloads_as_they_come(write_case: Write, tmp_path: Path) -> None:
    for grade, name in (("HGG", "b"), ("LGG", "a")):
        write_case(name, folder=tmp_path / "Training" / grade)
    assert [path.name for path in case_paths(tmp_path)] == ["b", "a"]
    assert [files.name for files in find_cases(tmp_path)] == ["a", "b"]
    folder = tmp_path / "Training" / "HGG" / "b"
    (folder / "b_seg.nii.gz").rename(folder / "W39_1998.09.19_Segm.nii.gz")
    assert read_case(folder).labels is not None
    shutil.copy(folder / "b_t1.nii.gz", folder / "notes.nii.gz")
    [warning] = read_case(folder).warnings
    assert "notes.nii.gz: not used" in warning


@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling", "loop"])
def test_what_is_no_file(write_case: Write, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe without a writer would never end; a folder is not damaged."""
    write_case("Case_2")
    path = write_case() / "Case_1_t1.nii.gz"
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "dangling":
            path.symlink_to("nothing")
        case "loop":
            path.symlink_to(path.name)
    with pytest.raises(GliosliceError, match=rf"{path}: (is a|a link|cannot be read)"):
        read_case(path.parent)
    with pytest.raises(SystemExit) as end:
        check.main([str(path.parent.parent)])
    assert end.value.code == 2
    assert re.search("Case_1: problem.*\nCase_2: ready", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("case.zip", "packed archive; unpack it"),
        ("case.tar.gz", "packed archive; unpack it"),
        ("pipe", "neither a folder nor a file"),
        ("nowhere", "no such folder or file"),
    ],
)
def test_what_is_no_case(name: str, expected: str, tmp_path: Path) -> None:
    if name == "pipe":
        os.mkfifo(tmp_path / name)
    elif name != "nowhere":
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(GliosliceError, match=f"{tmp_path / name}: .*{expected}"):
        find_case(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_was_never_downloaded(write_case: Write, content: bytes) -> None:
    path = write_case() / "Case_1_t1.nii.gz"
    path.write_bytes(content)
    with pytest.raises(GliosliceError, match=f"{path}: .* only {len(content)} bytes; copy it"):
        read_case(path.parent)


def test_a_link_to_a_folder_above(write_case: Write, tmp_path: Path) -> None:
    folder = write_case(folder=tmp_path / "data")
    (tmp_path / "data" / "loop").symlink_to("..")
    assert case_paths(tmp_path) == [folder]


def test_a_folder_without_permission_does_not_end_the_others(
    write_case: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the refusal is made here."""
    folder, locked = write_case(folder=tmp_path / "data"), tmp_path / "data" / "locked"
    locked.mkdir()
    iterdir = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert case_paths(tmp_path) == [folder, locked]
    assert case_name(locked) == "locked"


def test_files_of_two_patients(write_case: Write, volumes: Volumes, tmp_path: Path) -> None:
    folder = write_case()
    (folder / "Case_1_t1ce.nii.gz").rename(folder / "Case_2_t1ce.nii.gz")
    [warning] = read_case(folder).warnings
    assert "Case_1_flair.nii.gz and Case_2_t1ce.nii.gz" in warning
    bids = tmp_path / "anat"
    for name, image in zip(
        ("sub-1_acq-2d_FLAIR", "sub-1_T1w", "sub-1_ce-gd_T1w", "sub-1_run-2_T2w"),
        volumes[0],
        strict=True,
    ):
        save(bids / f"{name}.nii.gz", image)
    assert not read_case(bids).warnings


def test_files_given_under_another_modality(write_case: Write) -> None:
    folder = write_case()
    files = {modality: folder / f"Case_1_{modality}.nii.gz" for modality in MODALITIES}
    assert not given_case(files).notes
    swapped = files | {"t1": files["t2"], "t2": files["t1"]}
    assert len(given_case(swapped).notes) == 2
    assert "is given as t1, but its name says t2" in given_case(swapped).notes[0]


def test_names_with_line_breaks_and_escape_sequences(write_case: Write) -> None:
    folder = write_case("a\nb\x1b[31m")
    assert read_case(folder).name == case_name(folder) == "a_b_[31m"


def test_names_that_are_not_utf8(
    write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller")
    write_case().rename(folder)
    check.main([folder])
    assert "M\\udcfcller" in capsys.readouterr().out


def test_a_damaged_checksum(write_case: Write) -> None:
    """Voxels that differ from those that were compressed are not read as if nothing happened."""
    path = write_case() / "Case_1_t1.nii.gz"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # of the checksum
    path.write_bytes(content)
    with pytest.raises(GliosliceError, match="cut short or damaged"):
        read_case(path.parent)


def test_compression_is_told_by_content(write_case: Write, volumes: Volumes) -> None:
    folder = write_case(ending=".nii")
    path = folder / "Case_1_t1.nii"
    path.rename(path.with_suffix(".nii.gz"))
    np.testing.assert_array_equal(read_case(folder).images, volumes[0])


def test_masks_have_the_same_bytes_without_isal(
    write_case: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_case()
    written = []
    for reader in (nifti.GzipFile, gzip.GzipFile):
        monkeypatch.setattr(nifti, "GzipFile", reader)
        case = read_case(folder)
        assert case.labels is not None
        nifti.write_mask(tmp_path / "mask.nii.gz", case.labels, case.space)
        written.append((tmp_path / "mask.nii.gz").read_bytes())
    assert written[0] == written[1]
