"""Which series of a folder is which, and what is passed over by name."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from glioslice.errors import GliosliceError
from scanner.series import (
    choose_series,
    classify,
    convert_series,
    find_series,
    read_instances,
    series_grid,
)
from scanner.volumes import Grid
from tests.conftest import ROOT
from tests.scanner.simulated_scanner import (
    FLAIR,
    PRIVATE_TEXTS,
    SYNTAXES,
    T1,
    T1CE,
    T2,
    Patient,
    read,
    small_volume,
    write_headers,
    write_series,
)

FOUR = (T1, T1CE, T2, FLAIR)
MIPS = ("DERIVED", "SECONDARY", "MPR")


def roles(folder: Path) -> dict[str, str | None]:
    return {series.number: series.role for series in find_series(folder)}


def test_four_sequences_are_recognised_by_tags(study: Path) -> None:
    for protocol in FOUR:
        write_headers(study / "DICOM" / "deep", protocol)
    (study / "DICOMDIR").write_bytes(b"no image")
    found = find_series(study)
    chosen = choose_series(found, {}, study)
    assert {m: s.number for m, s in chosen.items()} == {
        "t1": "2",
        "t1ce": "5",
        "t2": "3",
        "flair": "4",
    }
    assert "with contrast agent" in chosen["t1ce"].reason
    assert "TI 2500" in chosen["flair"].reason


@pytest.mark.parametrize(
    ("tags", "role"),
    [
        ({"te": 4.6, "tr": 25.0, "description": "t1_fl3d_tra"}, "t1"),
        ({"te": 3.0, "tr": 2000.0, "ti": 900.0, "description": "mprage"}, "t1"),
        ({"te": 3.0, "tr": 2000.0, "ti": 900.0, "description": "mprage +KM"}, "t1ce"),
        ({"te": 3.0, "tr": 2000.0, "ti": 900.0, "description": "T1 post"}, "t1ce"),
        ({"te": 9.0, "tr": 500.0, "description": "T1 ohne Kontrast"}, "t1"),
        ({"te": 380.0, "tr": 5000.0, "ti": 1800.0, "description": "space_da-fl"}, "flair"),
        ({"te": 100.0, "tr": 5000.0, "description": "no name"}, "t2"),
        ({"te": 100.0, "tr": 9000.0, "ti": 2500.0, "description": "t1 by mistake"}, "flair"),
        ({"te": 20.0, "tr": 3000.0, "description": "pd_tse"}, None),
        ({"te": 20.0, "tr": 28.0, "tags": (("ScanningSequence", "GR"),)}, None),
    ],
)
def test_tags_decide_before_text(tags: dict[str, Any], role: str | None, study: Path) -> None:
    [path, *_] = write_headers(study, T1, **tags)
    assert classify(read(path))[0] == role
    [series] = find_series(study)
    assert series.role == role  # nor does the description of an original make it a derived one


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_type": MIPS}, "derived"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localiser"),
        ({"description": "localizer"}, "localiser"),
        ({"description": "ep2d_diff_ADC"}, "diffusion"),
        ({"description": "t1 SUB"}, "derived"),
        ({"description": "ep2d_perf"}, "p"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "P")}, "phase"),
        ({"tags": (("BodyPartExamined", "KNEE"),)}, "knee"),
        ({"tags": (("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"),)}, "screen capture"),
        ({"tags": (("AngioFlag", "Y"),)}, "angiography"),
        ({"slices": 5}, "only 5 slices"),
    ],
)
def test_what_is_no_original_head_is_passed_over(
    changes: dict[str, object], reason: str, study: Path
) -> None:
    write_headers(study, T1CE, **{"slices": 20, **changes})  # type: ignore[arg-type]
    [series] = find_series(study)
    assert series.role is None
    assert reason in series.reason
    assert "passed over" in series.line
    with pytest.raises(GliosliceError, match=r"series 5"):
        choose_series([series], {}, study)


def test_a_missing_slice_makes_a_series_incomplete(study: Path) -> None:
    paths = write_headers(study, T2)
    paths[9].unlink()
    [series] = find_series(study)
    assert series.role is None
    assert "10.0 mm between two slices" in series.reason


def test_doubled_instances_count_once_and_doubled_series_are_passed_over(study: Path) -> None:
    paths = write_headers(study, T2)
    shutil.copy(paths[3], study / "again")
    assert [len(s.files) for s in find_series(study)] == [20]
    write_series(study / "copy", small_volume(20, T2.number), T2, study="study")
    twin = T2.__class__(**{**T2.__dict__, "number": 31})
    write_series(study / "twin", small_volume(20, T2.number), twin)
    assert roles(study) == {"3": "t2", "31": None}
    assert find_series(study)[1].reason == "a copy of series 3"


def test_perfusion_with_several_images_at_each_position_is_passed_over(study: Path) -> None:
    write_headers(study, T2)
    for path in write_headers(study / "second", T2):
        instance = read(path)
        instance.SOPInstanceUID += ".7"
        instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        instance.save_as(path)
    [series] = find_series(study)
    assert series.role is None
    assert series.reason.startswith("2.0 images at each position")


def test_two_candidates_are_a_question(study: Path) -> None:
    write_headers(study, T1CE)
    write_headers(study, T1CE, number=12, description="t1_mprage_km")
    found = find_series(study)
    with pytest.raises(GliosliceError, match=r"2 candidates for T1ce.*--t1ce 5"):
        choose_series(found, {}, study)
    assert choose_series(found, {"t1ce": "12"}, study)["t1ce"].number == "12"
    with pytest.raises(GliosliceError, match="have the number 99"):
        choose_series(found, {"t1ce": "99"}, study)


def test_two_patients_are_refused_without_their_names(study: Path) -> None:
    write_series(study, small_volume(), T2)
    write_series(study, small_volume(), FLAIR, Patient("Nowak^Łucja".encode().decode(), "Q-1"))
    with pytest.raises(GliosliceError, match=r"2 studies of 2 patients.*--study") as caught:
        find_series(study)
    assert not [text for text in PRIVATE_TEXTS if text in str(caught.value)]
    assert [s.role for s in find_series(study, 1)] != [s.role for s in find_series(study, 2)]
    with pytest.raises(GliosliceError, match="no --study 3"):
        find_series(study, 3)


def test_a_folder_without_mr_is_refused(study: Path) -> None:
    (study / "report.txt").write_text("no image")
    with pytest.raises(GliosliceError, match="no MR images"):
        find_series(study)


def test_a_truncated_instance_is_refused(study: Path) -> None:
    paths = write_headers(study, T2)
    paths[4].write_bytes(paths[4].read_bytes()[:-200])
    [series] = find_series(study)
    with pytest.raises(GliosliceError, match="cut short") as caught:
        read_instances(series, "t2")
    assert str(paths[4]) in str(caught.value)


def write_tag(paths: list[Path], keyword: str, value: bytes | None) -> None:
    """Put bytes that pydicom would not write into instances; None deletes the tag."""
    tag = Tag(keyword)
    for path in paths:
        instance = read(path)
        if value is None:
            del instance[tag]
        else:
            raw = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
            instance._dict[tag] = raw
        instance.save_as(path)


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImagePositionPatient", None),
        ("ImagePositionPatient", b""),
        ("ImagePositionPatient", b"nan\\0\\0 "),
        ("ImagePositionPatient", b"1\\2 "),
        ("ImageOrientationPatient", b"1\\0\\0\\0\\x\\0 "),
        ("ImageOrientationPatient", b""),
        ("PixelSpacing", None),
        ("PixelSpacing", b"0\\0 "),
        ("Rows", b"\x20"),  # half a number
        ("Rows", None),
    ],
)
def test_a_series_that_its_tags_do_not_place_is_passed_over_and_cannot_be_named(
    keyword: str, value: bytes | None, count: int, study: Path
) -> None:
    write_tag(write_headers(study, T2)[-count:], keyword, value)
    [series] = find_series(study)
    assert series.role is None
    assert "is unusable" in series.reason or "slices of 2 sizes" in series.reason
    with pytest.raises(GliosliceError, match=r"T2, series 3|instance of T2"):
        convert_series(series, "T2")


@pytest.mark.parametrize(("keyword", "value"), [("PixelSpacing", b"2\\2 "), ("Rows", b"\x20\x00")])
def test_slices_of_two_sizes_are_no_series(keyword: str, value: bytes, study: Path) -> None:
    write_tag(write_headers(study, T2)[4:5], keyword, value)
    [series] = find_series(study)
    assert (series.role, series.reason) == (None, "slices of 2 sizes")


def test_a_damaged_tag_counts_as_missing(study: Path) -> None:
    """Of a value representation that does not exist, pydicom reads nothing."""
    paths = write_headers(study, T2, description="flair")
    for path in paths:
        content = path.read_bytes()
        at = content.index(b"\x18\x00\x80\x00DS")  # the repetition time
        path.write_bytes(content[: at + 4] + b"D\xff" + content[at + 6 :])
    [series] = find_series(study)
    assert (series.role, series.reason) == ("flair", "by its description")


def test_what_a_terminal_would_obey_is_not_printed(study: Path) -> None:
    paths = write_headers(study, T2)
    write_tag(paths, "SeriesDescription", b"t2 \x1b[2J\x07tra")
    [series] = find_series(study)
    assert series.text == "t2 [2Jtra"


def test_what_pydicom_warns_of_is_not_shown(study: Path) -> None:
    """Its warnings hold values of the study."""
    paths = write_headers(study, T2)
    write_tag(paths, "SpecificCharacterSet", b"NONSENSE")
    write_tag(paths, "PatientName", b"\xff\xfe\x1b$B^Secret")
    code = "import sys; from pathlib import Path; from scanner.series import find_series\n"
    code += "print([s.role for s in find_series(Path(sys.argv[1]))])"
    done = subprocess.run(
        [sys.executable, "-c", code, study], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("['t2']\n", "")


@pytest.mark.parametrize("index", [4, 10])
def test_a_damaged_instance_is_named(index: int, study: Path) -> None:
    """The middle one is read for its pixels, the others for their headers alone."""
    paths = write_headers(study, T2)
    for path in paths:
        instance = read(path)
        instance.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        instance.save_as(path)
    content = paths[index].read_bytes()
    paths[index].write_bytes(content[:-900] + bytes(900))
    with pytest.raises(GliosliceError, match=r"is damaged|cut short") as caught:
        read_instances(find_series(study)[0], "T2")
    assert str(paths[index]) in str(caught.value)


def test_a_truncated_middle_instance_is_refused(study: Path) -> None:
    paths = write_headers(study, T2)
    paths[10].write_bytes(paths[10].read_bytes()[:-200])
    with pytest.raises(GliosliceError, match="cut short") as caught:
        read_instances(find_series(study)[0], "T2")
    assert str(paths[10]) in str(caught.value)


def test_a_transfer_syntax_that_dcm2niix_cannot_read_is_named(study: Path) -> None:
    for path in write_headers(study, T2):
        instance = read(path)
        instance.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        instance.save_as(path)
    with pytest.raises(GliosliceError, match=r"T2, series 3: .*Deflated.*uncompressed"):
        convert_series(find_series(study)[0], "T2")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_conversion_keeps_voxels_and_geometry(syntax: str, study: Path) -> None:
    """dcm2niix and DICOM's own geometry agree, whatever the transfer syntax."""
    turned = np.eye(4)
    turned[:3, :3] = [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]
    volume = small_volume()
    oblique = Grid(volume.grid.shape, turned @ volume.grid.affine)
    write_series(
        study,
        type(volume)(volume.voxels, oblique),
        T2.__class__(**{**T2.__dict__, "syntax": syntax}),
    )
    [series] = find_series(study)
    converted = convert_series(series, "t2")
    grid = series_grid(read_instances(series, "t2"))
    np.testing.assert_allclose(grid.affine, oblique.affine, atol=1e-3)
    # dcm2niix flips rows; the same voxel has to lie at the same place.
    index = np.array([3, 5, 7])
    place = np.linalg.inv(converted.grid.affine) @ grid.affine @ [*index, 1]
    at = tuple(np.rint(place[:3]).astype(int))
    np.testing.assert_allclose(place[:3], at, atol=0.01)
    scale = 4000 / volume.voxels.max()
    assert converted.voxels[at] == pytest.approx(volume.voxels[tuple(index)] * scale, abs=0.6)
