"""All data sets are read to the same arrays; a broken case gives a one-line error."""

import csv
import gzip
import json
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from glioslice.cases import (
    MODALITIES,
    case_digest,
    find_case,
    find_cases,
    find_problems,
    read_case,
)
from glioslice.errors import GliosliceError
from glioslice.labels import BRATS_2018 as SCHEME_2018
from glioslice.labels import BRATS_2023 as SCHEME_2023
from glioslice.labels import DECATHLON
from glioslice.nifti import write_mask
from tests.conftest import BRATS_2023, LPS, Write, save

Volumes = tuple[NDArray[np.float32], NDArray[np.uint8]]


def test_brats_2018(write_case: Write, volumes: Volumes) -> None:
    case = read_case(write_case())
    assert case.scheme is SCHEME_2018
    np.testing.assert_array_equal(case.images, volumes[0])
    assert case.labels is not None
    np.testing.assert_array_equal(case.labels, volumes[1])


def test_a_case_is_read_from_a_path_or_from_its_files(write_case: Write) -> None:
    folder = write_case()
    for source in (folder, str(folder), find_case(folder), find_case(str(folder))):
        assert read_case(source).name == "Case_1"


def test_brats_2023(write_case: Write, volumes: Volumes) -> None:
    case = read_case(write_case("BraTS-GLI-00001-000", BRATS_2023, enhancing=3))
    assert case.scheme is SCHEME_2023
    np.testing.assert_array_equal(case.images, volumes[0])
    assert case.labels is not None
    np.testing.assert_array_equal(case.labels, volumes[1])


def write_decathlon(folder: Path, volumes: Volumes, name: str = "BRATS_001") -> Path:
    images, labels = volumes
    image = save(folder / "imagesTr" / f"{name}.nii.gz", np.moveaxis(images, 0, -1))
    save(folder / "labelsTr" / f"{name}.nii.gz", np.array([0, 2, 1, 3], np.uint8)[labels])
    return image


def test_decathlon(tmp_path: Path, volumes: Volumes) -> None:
    image = write_decathlon(tmp_path, volumes)
    for path in (tmp_path, image):
        case = read_case(path)
        assert case.scheme is DECATHLON
        np.testing.assert_array_equal(case.images, volumes[0])
        assert case.labels is not None
        np.testing.assert_array_equal(case.labels, volumes[1])
    write_decathlon(tmp_path, volumes, "BRATS_000")
    assert [files.name for files in find_cases(tmp_path)] == ["BRATS_000", "BRATS_001"]
    with pytest.raises(GliosliceError, match="holds 2 Decathlon cases"):
        find_case(tmp_path)


@pytest.mark.parametrize(
    ("modality", "labels", "message"),
    [
        ({"0": "CT", "1": "PET"}, {"1": "edema"}, "modalities CT, PET"),
        (
            {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
            {"1": "necrosis", "2": "edema"},
            "labels 1 core, 2 edema",
        ),
    ],
)
def test_a_description_of_another_decathlon_task_is_refused(
    tmp_path: Path,
    volumes: Volumes,
    modality: dict[str, str],
    labels: dict[str, str],
    message: str,
) -> None:
    image = write_decathlon(tmp_path, volumes)
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": modality, "labels": labels}))
    with pytest.raises(GliosliceError, match=message):
        find_case(image)


def test_upper_case_suffixes_uncompressed_files_and_a_float_mask(
    write_case: Write, volumes: Volumes
) -> None:
    folder = write_case(ending=".NII")
    for path in sorted(folder.iterdir()):
        path.rename(path.with_name(path.name.replace("_flair", "_FLAIR").replace("_t1", "_T1")))
    save(folder / "Case_1_seg.NII", np.where(volumes[1] == 3, 4.0, volumes[1]).astype(np.float64))
    case = read_case(folder)
    np.testing.assert_array_equal(case.images, volumes[0])
    assert case.labels is not None
    np.testing.assert_array_equal(case.labels, volumes[1])


@pytest.mark.parametrize("axes", [("R", "A", "S"), ("A", "S", "R"), ("P", "I", "L")])
def test_any_orientation_is_converted_to_lps_and_back(
    write_case: Write, volumes: Volumes, axes: tuple[str, str, str], tmp_path: Path
) -> None:
    folder = write_case()
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(axes)
    )
    for path in folder.iterdir():
        nib.save(nib.Nifti1Image.from_filename(path).as_reoriented(turn), path)
    case = read_case(folder)
    np.testing.assert_array_equal(case.images, volumes[0])
    assert case.labels is not None
    write_mask(tmp_path / "back.nii.gz", np.where(case.labels == 3, 4, case.labels), case.space)
    back, source = (
        nib.Nifti1Image.from_filename(tmp_path / "back.nii.gz"),
        nib.Nifti1Image.from_filename(folder / "Case_1_seg.nii.gz"),
    )
    np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(source.dataobj))
    np.testing.assert_array_equal(back.affine, source.affine)
    assert nib.aff2axcodes(back.affine) == axes
    assert back.get_data_dtype() == np.uint8


def test_a_case_without_a_mask_has_no_labels(write_case: Write) -> None:
    folder = write_case()
    (folder / "Case_1_seg.nii.gz").unlink()
    assert read_case(folder).labels is None


def test_the_digest_depends_on_the_images_only(write_case: Write, tmp_path: Path) -> None:
    one = read_case(write_case())
    other = read_case(write_case("Renamed", BRATS_2023, 3, ending=".nii"))
    assert case_digest(one) == case_digest(other)
    one.images[0, 10, 10, 10] += 1
    assert case_digest(one) != case_digest(other)


def test_cases_are_sorted_and_other_folders_ignored(write_case: Write, tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_case(name)
    (tmp_path / "notes").mkdir()
    assert [files.name for files in find_cases(tmp_path)] == ["a", "b", "c"]


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(GliosliceError) as caught:
        read_case(folder)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def without_mask(folder: Path, *parts: str) -> None:
    """A ground truth that cannot be used is a warning: segmentation needs none."""
    case = read_case(folder)
    assert case.labels is None
    assert case.mask_problem is not None
    [warning] = case.warnings
    for part in parts:
        assert part in warning


def test_a_missing_modality(write_case: Write) -> None:
    folder = write_case()
    (folder / "Case_1_t1ce.nii.gz").unlink()
    refused(folder, str(folder), "T1ce is missing", "--missing t1ce")
    with pytest.raises(GliosliceError, match="FLAIR and T1ce is missing"):
        (folder / "Case_1_flair.nii.gz").unlink()
        read_case(folder, ("t1",))


@pytest.mark.parametrize("missing", [("t1",), ("t2",), ("t1", "t2"), ("flair",), ("t1ce", "t2")])
def test_a_case_without_some_modalities(
    missing: tuple[str, ...], write_case: Write, volumes: Volumes
) -> None:
    """The files may be absent or bad: they are not read, and their images are 0."""
    folder, expected = write_case(), volumes[0].copy()
    for modality in missing:
        expected[MODALITIES.index(modality)] = 0
        (folder / f"Case_1_{modality}.nii.gz").write_bytes(b"damaged")
    case = read_case(folder, missing)
    assert case.missing == missing
    np.testing.assert_array_equal(case.images, expected)
    assert find_problems(find_case(folder), missing) == []
    assert len(find_problems(find_case(folder))) == len(missing)
    for modality in missing:
        (folder / f"Case_1_{modality}.nii.gz").unlink()
    if set(missing) <= {"t1", "t2"}:  # need no option
        assert read_case(folder).missing == missing
    np.testing.assert_array_equal(read_case(folder, missing).images, expected)
    assert find_cases(folder.parent)[0].images.keys() == set(MODALITIES) - set(missing)


def test_a_case_of_one_modality_or_none(write_case: Write, volumes: Volumes) -> None:
    folder = write_case()
    case = read_case(folder, ("flair", "t1", "t2"))
    np.testing.assert_array_equal(case.images[2], volumes[0][2])
    assert not case.images[[0, 1, 3]].any()
    with pytest.raises(GliosliceError, match="every modality"):
        read_case(folder, MODALITIES)
    for modality in MODALITIES:
        (folder / f"Case_1_{modality}.nii.gz").unlink()
    refused(folder, "a mask and no image")


def test_a_channel_of_the_decathlon_may_be_left_out(tmp_path: Path, volumes: Volumes) -> None:
    case = read_case(write_decathlon(tmp_path, volumes), ("t1",))
    assert case.missing == ("t1",)
    assert not case.images[1].any()
    np.testing.assert_array_equal(case.images[[0, 2, 3]], volumes[0][[0, 2, 3]])


def test_a_modality_present_twice(write_case: Write) -> None:
    folder = write_case()
    (folder / "Other_t2.nii").write_bytes(b"")
    refused(folder, "t2", "twice")


def test_mixed_file_names(write_case: Write) -> None:
    folder = write_case()
    write_case("Case_1", BRATS_2023)
    refused(folder, "mixes the file names")


def test_no_case(tmp_path: Path) -> None:
    refused(tmp_path, str(tmp_path), "no case")
    refused(tmp_path / "nowhere", "no such folder or file")
    with pytest.raises(GliosliceError, match="no case found"):
        find_cases(tmp_path)


def test_a_different_shape(write_case: Write, volumes: Volumes) -> None:
    folder = write_case()
    save(folder / "Case_1_t2.nii.gz", volumes[0][3, 1:])
    refused(folder, "Case_1_t2.nii.gz", "shape (27, 36, 20)")


def test_a_different_affine(write_case: Write, volumes: Volumes) -> None:
    folder = write_case()
    moved = LPS.copy()
    moved[0, 3] = 2.0
    save(folder / "Case_1_t2.nii.gz", volumes[0][3], moved)
    refused(folder, "Case_1_t2.nii.gz", "affine differs")


def test_spacing(write_case: Write, volumes: Volumes) -> None:
    folder = write_case()
    save(folder / "Case_1_flair.nii.gz", volumes[0][0], LPS @ np.diag([1, 1, 2.5, 1]))
    refused(folder, "Case_1_flair.nii.gz", "1.00 x 1.00 x 2.50 mm")


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\x1f\x8b no gzip", gzip.compress(b"x" * 600, mtime=0)]
)
def test_not_a_nifti_file(write_case: Write, content: bytes) -> None:
    folder = write_case()
    (folder / "Case_1_t1.nii.gz").write_bytes(content)
    refused(folder, "Case_1_t1.nii.gz")


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.99])
def test_a_truncated_gzip(write_case: Write, kept: float) -> None:
    folder = write_case()
    path = folder / "Case_1_t1.nii.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refused(folder, "Case_1_t1.nii.gz", "cut short or damaged")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite(write_case: Write, volumes: Volumes, value: float) -> None:
    folder = write_case()
    images = volumes[0].copy()
    images[0, 0, 0, 0] = value
    save(folder / "Case_1_flair.nii.gz", images[0])
    refused(folder, "Case_1_flair.nii.gz", "NaN or infinite")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_header_that_claims_more_than_the_file_holds(write_case: Write, ending: str) -> None:
    folder = write_case(ending=ending)
    path = folder / f"Case_1_t1{ending}"
    content = path.read_bytes()
    raw = bytearray(gzip.decompress(content) if ending == ".nii.gz" else content)
    raw[40:48] = struct.pack("<4h", 3, 1000, 1000, 1000)
    path.write_bytes(gzip.compress(bytes(raw)) if ending == ".nii.gz" else bytes(raw))
    refused(folder, path.name, "(1000, 1000, 1000)", "more than the file can hold")


def test_a_head_that_is_not_skull_stripped(write_case: Write) -> None:
    folder = write_case()
    for path in folder.iterdir():
        save(path, np.ones((150, 150, 150), np.float32))
    refused(folder, "Case_1_flair.nii.gz", "not skull-stripped")


def test_labels_of_another_data_set(write_case: Write, volumes: Volumes) -> None:
    folder = write_case()
    save(folder / "Case_1_seg.nii.gz", np.where(volumes[1] == 3, np.uint8(7), volumes[1]))
    without_mask(folder, "labels 1 2 7", "BraTS 2018-2021", "1 2 4", "no edition")
    save(folder / "Case_1_seg.nii.gz", volumes[1])
    without_mask(folder, "labels 1 2 3", "BraTS 2018-2021", "brats2023 or msd", "--edition")
    save(folder / "Case_1_seg.nii.gz", volumes[1] / 2)
    without_mask(folder, "0.5 1.5", "nearest neighbour")


def test_swapped_labels_of_core_and_edema(write_case: Write, volumes: Volumes) -> None:
    """Decathlon's values under the file names of BraTS 2023, the most common mistake."""
    folder = write_case("Case_1", BRATS_2023)
    save(folder / "Case_1-seg.nii.gz", np.array([0, 2, 1, 3], np.uint8)[volumes[1]])
    without_mask(folder, "BraTS 2023", "labels 1 2 3", "cannot nest", "swapped")


@pytest.mark.real
def test_every_real_patient_is_found(real_cases: Path) -> None:
    found = find_cases(real_cases)
    with (real_cases.parent / "patients.csv").open(newline="", encoding="utf-8") as file:
        assert {files.name for files in found} == {row["case"] for row in csv.DictReader(file)}
    case = read_case(found[0])
    assert case.images.shape == (len(MODALITIES), 240, 240, 155)
    source = nib.Nifti1Image.from_filename(found[0].images["t1ce"])
    np.testing.assert_array_equal(case.space.affine, source.affine)
