"""DICOM SEG, read back by pydicom and highdicom voxel for voxel, and validated by dciodvfy."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.labels import CORE, EDEMA, ENHANCING, to_regions
from scanner.dicom_seg import CLASSIC, FORMS, LABELMAP, write_segmentation
from scanner.series import find_series, read_instances, series_grid
from scanner.volumes import TO_LPS
from tests.scanner.simulated_scanner import PRIVATE_TEXTS, T1CE, read_by_dcmqi, write_headers

ORDER = [0, 2, 1, 3]
"""Segment of a label map by label: background, core, edema, enhancing."""


@pytest.fixture
def sources(study: Path) -> list[pydicom.Dataset]:
    write_headers(study, T1CE)
    [series] = find_series(study)
    return read_instances(series, "t1ce")


def nested(sources: Sequence[pydicom.Dataset]) -> NDArray[np.uint8]:
    """A tumour that is not symmetric along any axis."""
    labels = np.zeros(series_grid(sources).shape, np.uint8)
    labels[5:22, 8:20, 3:14] = EDEMA
    labels[9:20, 10:19, 5:12] = ENHANCING
    labels[12:15, 12:18, 6:9] = CORE
    return labels


def by_position(path: Path) -> dict[tuple[float, ...], dict[int, NDArray[np.bool_]]]:
    """The frames of a segmentation by position and segment, from the standard's tags alone."""
    segmentation = pydicom.dcmread(path)
    pixels = segmentation.pixel_array
    found: dict[tuple[float, ...], dict[int, NDArray[np.bool_]]] = {}
    for frame, groups in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        place = tuple(round(float(n), 2) for n in position)
        if "SegmentIdentificationSequence" in groups:
            number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            found.setdefault(place, {})[number] = frame > 0
        else:
            found[place] = {number: frame == number for number in (1, 2, 3)}
    return found


@pytest.mark.parametrize("form", FORMS)
def test_pydicom_reads_every_voxel_at_its_place(
    form: str, sources: list[pydicom.Dataset], tmp_path: Path
) -> None:
    labels = nested(sources)
    path = tmp_path / "mask.dcm"
    write_segmentation(path, sources, labels, form, "compact")
    found = by_position(path)
    expected = to_regions(labels) if form == CLASSIC else np.stack(
        [labels == EDEMA, labels == CORE, labels == ENHANCING]
    )  # fmt: skip
    affine = TO_LPS @ series_grid(sources).affine
    for z in range(labels.shape[2]):
        place = tuple(round(float(n), 2) for n in (affine @ [0, 0, z, 1])[:3])
        for number in (1, 2, 3):
            frame = found.get(place, {}).get(number, np.zeros(labels.shape[1::-1], bool))
            np.testing.assert_array_equal(frame, expected[number - 1, :, :, z].T)


@pytest.mark.parametrize("form", FORMS)
def test_highdicom_reads_the_frames_of_each_source(
    form: str, sources: list[pydicom.Dataset], tmp_path: Path
) -> None:
    labels = nested(sources)
    path = tmp_path / "mask.dcm"
    write_segmentation(path, sources, labels, form)
    segmentation = highdicom.seg.segread(path)
    pixels = segmentation.get_pixels_by_source_instance(
        [instance.SOPInstanceUID for instance in sources], ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )  # fmt: skip
    enhancing = np.moveaxis(pixels[..., 2], (0, 1, 2), (2, 1, 0)) > 0
    np.testing.assert_array_equal(enhancing, labels == ENHANCING)
    assert segmentation.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    assert segmentation.PatientName == PRIVATE_TEXTS[0]  # it belongs into the study
    codes = [
        d.segmented_property_type.value
        for d in (segmentation.get_segment_description(n) for n in (1, 2, 3))
    ]
    expected = ["108369006", "372087000", "C113842"]
    assert codes == (expected if form == CLASSIC else ["79654002", "C81175", "C113842"])
    algorithm = segmentation.get_segment_description(1).algorithm_identification
    assert algorithm is not None and algorithm.name.startswith("glioslice")


@pytest.mark.parametrize("form", FORMS)
def test_dcmqi_reads_every_voxel_at_its_place(
    form: str, sources: list[pydicom.Dataset], tmp_path: Path
) -> None:
    """DCMQI is other code, in C++; it makes one file of a label map, else one of each segment."""
    labels = nested(sources)
    write_segmentation(tmp_path / "mask.dcm", sources, labels, form)
    found = read_by_dcmqi(tmp_path / "mask.dcm", tmp_path / "read")
    expected: list[NDArray[np.int64]] = (
        list(to_regions(labels).astype(int))
        if form == CLASSIC
        else [np.choose(labels, ORDER).astype(int)]
    )
    assert len(found) == len(expected)
    affine = series_grid(sources).affine
    for image, segment in zip(found, expected, strict=True):
        voxels = np.asarray(image.dataobj)
        at = np.argwhere(voxels > 0)
        world = image.affine @ np.vstack([at.T, np.ones(len(at))])
        index = tuple(np.rint((np.linalg.inv(affine) @ world)[:3]).astype(int))
        assert len(at) == np.count_nonzero(segment)
        np.testing.assert_array_equal(segment[index] > 0, True)
        if form == LABELMAP:
            np.testing.assert_array_equal(voxels[tuple(at.T)], segment[index])


def test_dciodvfy_knows_no_label_maps_but_finds_nothing_else(
    sources: list[pydicom.Dataset], tmp_path: Path
) -> None:
    path = tmp_path / "mask.dcm"
    write_segmentation(path, sources, nested(sources), LABELMAP)
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    errors = [line for line in (done.stderr + done.stdout).splitlines() if "Error" in line]
    assert all("Information Object Not found" in e or "SegmentNumber of 0" in e for e in errors)


@pytest.mark.parametrize("empty", [False, True])
def test_dciodvfy_finds_no_error(
    empty: bool, sources: list[pydicom.Dataset], tmp_path: Path
) -> None:
    labels = nested(sources) * np.uint8(not empty)
    path = tmp_path / "mask.dcm"
    write_segmentation(path, sources, labels)
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    errors = [line for line in (done.stderr + done.stdout).splitlines() if "Error" in line]
    assert errors == []
    broken = pydicom.dcmread(path)
    del broken.SegmentSequence
    broken.save_as(path)
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    assert "Error" in done.stderr + done.stdout


def test_equal_masks_have_equal_uids(sources: list[pydicom.Dataset], tmp_path: Path) -> None:
    uids = []
    for name, form in (("a", CLASSIC), ("b", CLASSIC), ("c", LABELMAP)):
        write_segmentation(tmp_path / name, sources, nested(sources), form)
        uids.append(pydicom.dcmread(tmp_path / name).SOPInstanceUID)
    assert uids[0] == uids[1] != uids[2]


def test_a_series_that_cannot_be_referred_to_is_refused(
    sources: list[pydicom.Dataset], tmp_path: Path
) -> None:
    for instance in sources:
        del instance.FrameOfReferenceUID
    with pytest.raises(GliosliceError, match="no DICOM SEG can be made"):
        write_segmentation(tmp_path / "mask.dcm", sources, nested(sources))
    assert not list(tmp_path.glob("*mask*"))
