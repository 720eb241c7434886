"""From a simulated scanner's folder to DICOM SEG, and what is refused on the way."""

import gzip
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from benchmarks.acquisition import Acquisition, random_pose, rigid
from benchmarks.scanner_studies import registration_error
from firmware_host import stream
from glioslice.cases import read_case
from glioslice.dataset_layouts import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.labels import EDEMA, ENHANCING, SCHEMES, from_scheme, to_regions
from glioslice.metrics import dice
from glioslice.nifti import SCANNER, Space, read_nifti, write_mask
from scanner import prepare, restore
from scanner.case_files import RECORD, StudyLink, read_spaces
from scanner.pipeline import SourceSpace
from scanner.restore import SHOWN, find_sources, restore_labels
from scanner.series import find_series, read_instances, series_grid
from scanner.volumes import TO_LPS, Grid, Volume, read_volume, region_on_grid, rotation_angle
from tests.conftest import ROOT
from tests.scanner.simulated_scanner import (
    FLAIR,
    PRIVATE_TEXTS,
    T1,
    T1CE,
    T2,
    Head,
    Protocol,
    phantom_head,
    read,
    read_by_dcmqi,
    scan,
    small_volume,
    write_headers,
    write_study,
)

pytestmark = pytest.mark.slow

BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_LS = "1.2.840.10008.1.2.4.80"


def protocols() -> list[Protocol]:
    """A study as scanners give it: thick slices, gaps, oblique planes, a patient who moved."""
    rng = np.random.default_rng(3)
    poses = [random_pose(rng) for _ in range(5)]
    wide: dict[str, Any] = {"in_plane": 1.5, "size": (140, 150)}
    return [
        replace(T1, thickness=4.0, gap=1.0, pose=poses[0], syntax=BIG_ENDIAN, **wide),
        replace(T1CE, thickness=3.0, pose=poses[1], **wide),
        replace(T2, thickness=5.0, in_plane=1.2, size=(180, 200), pose=poses[2], syntax=JPEG_LS),
        replace(FLAIR, thickness=4.0, oblique=poses[4], pose=poses[3], **wide),
    ]


@pytest.fixture(scope="module")
def scans(
    head: Head, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Acquisition]]:
    """The study's folder, and what the scanner acquired."""
    folder = tmp_path_factory.mktemp("scanner") / f"{PRIVATE_TEXTS[0]} {PRIVATE_TEXTS[5]}"
    scans = write_study(folder, head, protocols())
    write_headers(folder / "others", T1, slices=3, number=1, description="localizer")
    write_headers(folder / "others", T2, number=20, description="ep2d_diff_ADC")
    return folder, scans


@pytest.fixture(scope="module")
def result(scans: tuple[Path, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `stream SERIES_FOLDER --dicom-out` leaves."""
    folder = tmp_path_factory.mktemp("result") / "out"
    stream.main([str(scans[0]), "--port", "sim://", "--dicom-out", str(folder), "--quiet"])
    return folder


def files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        yield path, gzip.decompress(content) if path.suffix == ".gz" else content


def case_space(grid: Grid) -> Space:
    """The space of a mask of a case."""
    return Space.from_affine(grid.shape, grid.affine, (SCANNER, SCANNER))


def to_head(scan: Acquisition, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transform from the case to the head, by way of a sequence."""
    return scan.pose @ matrix


def test_the_case_is_ready_and_registered(
    scans: tuple[Path, dict[str, Acquisition]], result: Path, head: Head
) -> None:
    case = read_case(result / "case")
    assert case.space.shape == (240, 240, 155)
    grid, spaces = read_spaces(result / "case")
    ways = {m: to_head(scans[1][m], spaces[m].matrix) for m in MODALITIES}
    for modality in ("t1", "t2", "flair"):
        error = np.linalg.inv(ways["t1ce"]) @ ways[modality]
        corners = np.array([[60, 0, 0], [0, 70, 0], [0, 0, 50.0]])
        moved = corners @ error[:3, :3].T + error[:3, 3] - corners
        assert np.linalg.norm(moved, axis=1).mean() < 1.0, modality
        assert rotation_angle(error) < 0.7, modality
    brain = region_on_grid(head.brain, head.grid, grid, ways["t1ce"])
    assert dice(brain, (case.images != 0).any(axis=0)) > 0.93


TEXTS = {"AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
"""DICOM's value representations that hold text, dates and identifiers."""

SHORTEST = 5
"""Characters of a text that does not occur in other data by chance."""


def texts_of(folder: Path) -> set[str]:
    """Every text in the headers of a study."""
    values = [
        str(value)
        for path in folder.rglob("*")
        if path.is_file()
        for element in read(path).iterall()
        if element.VR in TEXTS
        for value in (element.value if element.VM > 1 else [element.value])
    ]
    return {value for value in values if len(value) >= SHORTEST}


def test_nothing_of_the_patient_leaves_the_study_but_in_dicom(
    scans: tuple[Path, object], result: Path
) -> None:
    texts = texts_of(scans[0]) | {str(scans[0]), str(scans[0].parent)}
    assert texts >= {*PRIVATE_TEXTS, T1CE.description} and len(texts) > 150
    needles = [text.encode(code) for text in sorted(texts) for code in ("utf-8", "latin-1")]
    found = 0
    for path, content in files(result):
        leaked = [needle for needle in needles if needle in content]
        assert bool(leaked) == (path.suffix == ".dcm"), (path, leaked[:3])
        found += 1
    assert found >= 10


def test_face_and_skull_are_not_in_the_case(
    scans: tuple[Path, dict[str, Acquisition]], result: Path, head: Head
) -> None:
    grid, spaces = read_spaces(result / "case")
    case = read_case(result / "case")
    outside = head.volumes["t1ce"].voxels > 0
    from scanner.registration import within

    far = outside & ~within(head.brain, head.grid, 10)
    on_case = region_on_grid(far, head.grid, grid, to_head(scans[1]["t1ce"], spaces["t1ce"].matrix))
    assert on_case.any()
    assert (case.images[:, on_case] != 0).mean() < 0.001


def test_the_mask_lies_on_the_tumour_of_each_source(
    scans: tuple[Path, dict[str, Acquisition]], result: Path, head: Head
) -> None:
    """The experts' mask of the head goes through the case into each source's space and back."""
    grid, spaces = read_spaces(result / "case")
    truth = restore_labels(
        head.labels, head.grid, grid,
        np.linalg.inv(to_head(scans[1]["t1ce"], spaces["t1ce"].matrix)),
    )  # fmt: skip
    out = result.parent / "restored"
    write_mask(result.parent / "truth.nii.gz", truth, case_space(grid))
    restore.main([
        str(result.parent / "truth.nii.gz"), str(result / "case"), "--out", str(out),
        "--dicom", str(scans[0]),
    ])  # fmt: skip
    for modality in ("t1ce", "flair"):
        acquired = scans[1][modality]
        on_source = acquired.volume.grid
        direct = restore_labels(head.labels, head.grid, on_source, np.linalg.inv(acquired.pose))
        # DICOM: by the positions of the frames, not by our own reader.
        segmentation = pydicom.dcmread(out / f"mask-on-{modality}.dcm")
        tumour = np.zeros(on_source.shape, bool)
        inverse = np.linalg.inv(TO_LPS @ on_source.affine)
        for pixels, groups in zip(
            segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True
        ):
            if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1:
                place = groups.PlanePositionSequence[0].ImagePositionPatient
                index = np.rint((inverse @ [*map(float, place), 1])[:3]).astype(int)
                assert tuple(index[:2]) == (0, 0)
                tumour[:, :, index[2]] = pixels.T > 0
        assert dice(tumour, direct > 0) > 0.93, modality
        # NIfTI: every voxel of the mask at the place of a voxel of DICOM.
        image = nib.load(out / f"mask-on-{modality}.nii.gz")
        assert isinstance(image, nib.Nifti1Image)
        voxels = np.argwhere(np.asarray(image.dataobj) > 0)
        world = image.affine @ np.vstack([voxels.T, np.ones(len(voxels))])
        at = np.rint((np.linalg.inv(on_source.affine) @ world)[:3]).astype(int)
        assert len(voxels) == tumour.sum() == tumour[tuple(at)].sum()


def test_the_run_leaves_a_segmentation_of_each_source(
    scans: tuple[Path, object], result: Path
) -> None:
    mask, _ = read_nifti(result / "mask.nii.gz")
    assert mask.any()
    for modality, number in (("t1ce", "5"), ("flair", "4")):
        segmentation = highdicom.seg.segread(result / f"mask-on-{modality}.dcm")
        [series] = [s for s in find_series(scans[0]) if s.number == number]
        sources = read_instances(series, modality)
        assert segmentation.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
        referred = segmentation.ReferencedSeriesSequence[0]
        assert referred.SeriesInstanceUID == sources[0].SeriesInstanceUID
        assert "not a medical device" in segmentation.SeriesDescription
        done = subprocess.run(
            ["dciodvfy", result / f"mask-on-{modality}.dcm"], capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert "Error" not in done.stderr + done.stdout
        assert series_grid(sources).shape == (sources[0].Columns, sources[0].Rows, len(sources))


def test_dcmqi_reads_the_mask_where_the_tumour_is(
    scans: tuple[Path, object], result: Path, tmp_path: Path
) -> None:
    """DCMQI (C++) makes a NIfTI file of each segment: the voxels of ours, at the same places."""
    read_back = [read_by_dcmqi(result / f"mask-on-{m}.dcm", tmp_path / m) for m in SHOWN]
    for modality, segments in zip(SHOWN, read_back, strict=True):
        ours = nib.load(result / f"mask-on-{modality}.nii.gz")
        assert isinstance(ours, nib.Nifti1Image)
        labels = from_scheme(np.asarray(ours.dataobj).astype(np.uint8), SCHEMES[0])
        assert len(segments) == 3
        for region, image in zip(to_regions(labels), segments, strict=True):
            found = np.argwhere(np.asarray(image.dataobj) > 0)
            world = image.affine @ np.vstack([found.T, np.ones(len(found))])
            at = np.rint((np.linalg.inv(ours.affine) @ world)[:3]).astype(int)
            assert len(found) == region.sum() == region[tuple(at)].sum()


def test_a_restored_mask_is_not_put_on_another_study(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_headers(tmp_path / "other", T1CE)
    write_headers(tmp_path / "other", FLAIR)
    options = [str(result / "mask.nii.gz"), str(result / "case"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        restore.main([*options, "--dicom", str(tmp_path / "other")])
    assert ended.value.code == 2
    assert "is not the one that the case was made of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error with which restore ends."""
    with pytest.raises(SystemExit) as ended:
        restore.main(options)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_mask_is_not_put_on_another_patient_at_the_same_place(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The study has the geometry of the case's own, to the last digit."""
    for protocol in protocols():
        if protocol.modality in SHOWN:
            write_study(tmp_path / "other", phantom_head(1), [protocol])
    out = tmp_path / "out"
    error = refused(
        [str(result / "mask.nii.gz"), str(result / "case"), "--out", str(out),
         "--dicom", str(tmp_path / "other")],
        capsys,
    )  # fmt: skip
    assert "T1ce" in error and "another brain" in error
    assert not out.exists()


def test_a_mask_of_another_case_is_refused_and_one_in_other_axes_is_not(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid, _ = read_spaces(result / "case")
    labels = np.zeros(grid.shape, np.uint8)
    labels[100:120, 90:110, 70:90] = 1
    other = grid.affine.copy()
    other[:3, 3] += 0.1  # the heads of two patients never lie at the same place
    write_mask(tmp_path / "other.nii.gz", labels, case_space(Grid(grid.shape, other)))
    options = [str(result / "case"), "--out", str(tmp_path / "out")]
    error = refused([str(tmp_path / "other.nii.gz"), *options], capsys)
    assert "is it its mask?" in error
    assert not (tmp_path / "out").exists()
    # An annotation tool may write the axes as it likes.
    turned = nib.as_closest_canonical(nib.Nifti1Image(labels, grid.affine))
    nib.save(turned, tmp_path / "ras.nii.gz")
    write_mask(tmp_path / "own.nii.gz", labels, case_space(grid))
    masks = []
    for name in ("own", "ras"):
        out = tmp_path / name
        restore.main([str(tmp_path / f"{name}.nii.gz"), options[0], "--out", str(out)])
        masks.append((out / "mask-on-t1ce.nii.gz").read_bytes())
    assert masks[0] == masks[1]


def test_the_grid_of_a_case_lies_where_its_head_does(result: Path) -> None:
    grid, spaces = read_spaces(result / "case")
    middle = [*grid.centre, 1]
    np.testing.assert_allclose(spaces["t1ce"].matrix @ middle, middle, atol=1e-6)
    assert np.abs(grid.centre).max() > 0.1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("sequences",), []),
        (("sequences",), {}),
        (("sequences", "t1ce", "case_to_source"), [[1, 0], [0, 1]]),
        (("sequences", "t1ce", "case_to_source"), [[0] * 4] * 4),
        (("sequences", "flair", "affine"), [[float("nan")] * 4] * 4),
        (("sequences", "flair", "shape"), [100_000, 100_000, 1000]),
        (("case", "shape"), [-240, 240, 155]),
    ],
)
def test_a_damaged_record_of_a_case_is_refused(
    path: tuple[str, ...], value: object, result: Path, tmp_path: Path
) -> None:
    record = json.loads((result / "case" / RECORD).read_text())
    entry = record
    for key in path[:-1]:
        entry = entry[key]
    assert path[-1] in entry
    entry[path[-1]] = value
    (tmp_path / RECORD).write_text(json.dumps(record))
    with pytest.raises(GliosliceError, match="is damaged"):
        read_spaces(tmp_path)


def test_options_of_a_study_need_one(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(result / "mask.nii.gz"), str(result / "case"), "--out", str(tmp_path / "out")]
    assert "--dicom" in refused([*options, "--t1ce", "5"], capsys)
    assert not (tmp_path / "out").exists()


def test_a_series_that_was_named_against_its_tags_is_found_again(study: Path) -> None:
    write_headers(study, T1)
    write_headers(study, T1, number=12)
    write_headers(study, FLAIR)
    space = SourceSpace(small_volume().grid, np.eye(4))
    link = StudyLink(study, 1, {"t1": "2", "t1ce": "12", "flair": "4"})
    sources = find_sources(link, {"t1ce": space, "flair": space})
    assert {m: s.number for m, s in sources.items()} == {"t1ce": "12", "flair": "4"}


def test_a_missing_port_and_existing_files_are_reported_before_a_case_is_prepared(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_headers(study, T1CE)
    write_headers(study, FLAIR)
    out = tmp_path / "out"
    options = [str(study), "--dicom-out", str(out), "--port"]
    for port, prepared, message in (("/dev/none", None, "no such port"), ("sim://", out, "exists")):
        if prepared:
            prepared.mkdir()
            (prepared / "mask-on-flair.dcm").touch()
        with pytest.raises(SystemExit) as ended:
            stream.main([*options, port])
        assert ended.value.code == 2
        shown = capsys.readouterr().err
        assert message in shown and "converting" not in shown


def test_every_mask_says_what_it_is_not(result: Path) -> None:
    for name in ("mask.nii.gz", "mask-on-t1ce.nii.gz", "case/case_t1ce.nii.gz"):
        image = nib.load(result / name)
        assert isinstance(image, nib.Nifti1Image)
        assert b"not a medical device" in bytes(image.header["descrip"]), name


def test_one_image_for_two_sequences_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, copy = (save(tmp_path / f"{n}.nii.gz", small_volume()) for n in "ab")
    with pytest.raises(SystemExit) as ended:
        prepare.main(["--t1ce", one, "--flair", copy, "--out", str(tmp_path / "Case")])
    assert ended.value.code == 2
    assert "are the same image" in capsys.readouterr().err


def save(path: Path, volume: Volume) -> str:
    nib.save(nib.Nifti1Image(volume.voxels, volume.grid.affine), path)
    return str(path)


def test_two_nifti_files_suffice_and_a_stranger_is_refused(
    head: Head, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    t1ce = save(tmp_path / "a.nii.gz", scan(head, replace(T1CE, thickness=3.0)).volume)
    flair = save(tmp_path / "b.nii.gz", scan(head, FLAIR).volume)
    prepare.main(["--t1ce", t1ce, "--flair", flair, "--out", str(tmp_path / "Case"), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert sorted(report["sequences"]) == ["flair", "t1ce"]
    assert "not a medical device" in report["notice"]
    assert {p.name for p in (tmp_path / "Case").iterdir()} == {
        "Case_flair.nii.gz", "Case_t1ce.nii.gz", "brain.png", "scanner.json"
    }  # fmt: skip
    mask = tmp_path / "brain.nii.gz"
    at = scan(head, replace(T1CE, thickness=3.0)).volume.grid
    brain = region_on_grid(head.brain, head.grid, at, np.eye(4))
    save(mask, Volume(brain.astype(np.float32), at))
    stranger = save(tmp_path / "c.nii.gz", scan(phantom_head(1), FLAIR).volume)
    with pytest.raises(SystemExit) as ended:
        prepare.main([
            "--t1ce", t1ce, "--flair", stranger, "--out", str(tmp_path / "No"),
            "--brain-extraction", str(mask),
        ])  # fmt: skip
    assert ended.value.code == 2
    assert "FLAIR does not fit T1ce" in capsys.readouterr().err
    assert not (tmp_path / "No").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: (folder / "a.txt").write_text("x"), "no MR images"),
        (lambda folder: write_headers(folder, FLAIR), "T1ce is missing"),
        (
            lambda folder: write_headers(folder, T1CE, tags=(("BodyPartExamined", "KNEE"),)),
            "it shows knee",
        ),
    ],
)
def test_bad_folders_end_in_one_line(
    make: object, message: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(study)  # type: ignore[operator]
    with pytest.raises(SystemExit) as ended:
        prepare.main([str(study), "--out", str(tmp_path / "Case")])
    assert ended.value.code == 2
    [error] = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error: ")]
    assert message in error
    assert not (tmp_path / "Case").exists()
    assert not list(tmp_path.glob(".prepare*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "2 candidates for T1ce"),
        (["--t1ce", "99"], "have the number 99"),
        (["--study", "3"], "no --study 3"),
        (["--t1ce", "12", "--brain-extraction", "none"], "still has its skull"),
    ],
)
def test_the_one_command_takes_what_the_tags_do_not_decide(
    options: list[str],
    message: str,
    study: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_headers(study, T1CE)
    write_headers(study, T1CE, number=12, description="t1_mprage_km")
    write_headers(study, FLAIR)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        stream.main([str(study), "--port", "sim://", "--dicom-out", str(out), *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("forms", "shift", "warning"),
    [((0, 0), 0, "states no orientation"), ((1, 1), 30, "differ by 30.0 mm"), ((1, 2), 0, "")],
)
def test_a_file_that_leaves_its_place_open_is_reported(
    forms: tuple[int, int], shift: float, warning: str, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    volume = small_volume()
    image = nib.Nifti1Image(volume.voxels, volume.grid.affine)
    moved = volume.grid.affine.copy()
    moved[0, 3] += shift
    image.set_qform(volume.grid.affine, forms[0])
    image.set_sform(moved, forms[1])
    nib.save(image, tmp_path / "t1ce.nii")
    grid = read_volume(tmp_path / "t1ce.nii").grid
    assert warning in caplog.text and bool(warning) == bool(caplog.records)
    if forms[1]:
        np.testing.assert_allclose(grid.affine, moved)


def test_a_header_that_claims_half_a_kilometre_is_refused(tmp_path: Path) -> None:
    volume = small_volume()
    wide = volume.grid.affine @ np.diag([100.0, 1, 1, 1])
    save(tmp_path / "t1ce.nii", Volume(volume.voxels, Grid(volume.grid.shape, wide)))
    with pytest.raises(GliosliceError, match="20,000 mm along one side"):
        read_volume(tmp_path / "t1ce.nii")


def test_a_folder_is_no_volume(tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match="is a folder, not a file"):
        read_volume(tmp_path)


def test_a_perfusion_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).uniform(1, 900, (40, 40, 20, 5)).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, np.diag([-5, -5, 5, 1.0])), tmp_path / "perfusion.nii")
    flair = save(tmp_path / "flair.nii", small_volume())
    with pytest.raises(SystemExit) as ended:
        prepare.main([
            "--t1ce", str(tmp_path / "perfusion.nii"), "--flair", flair,
            "--out", str(tmp_path / "Case"),
        ])  # fmt: skip
    assert ended.value.code == 2
    assert "expected three dimensions" in capsys.readouterr().err
    assert not (tmp_path / "Case").exists()


WRITE_TOO_MUCH = """
import resource, sys
import numpy as np
from pathlib import Path
from glioslice import cli
from scanner.case_files import write_case
from scanner.pipeline import Prepared
from scanner.volumes import Grid
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = np.random.default_rng(0).uniform(1, 9, (40, 40, 40)).astype(np.float32)
grid = Grid((40, 40, 40), np.diag([-1.0, -1.0, 1.0, 1.0]))
case = Prepared({"t1ce": noise}, grid, {}, {}, noise > 0, "none", b"")
arguments = cli.parser("test", "test").parse_args([])
cli.run(lambda _: write_case(Path(sys.argv[1]), case), arguments)
"""


def test_no_space_leaves_nothing_half_written(tmp_path: Path) -> None:
    assert hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run(
        [sys.executable, "-c", WRITE_TOO_MUCH, tmp_path / "Case"], cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


RESTORE_WITH_LIMIT = """
import resource, sys
from scanner import restore
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
restore.main(sys.argv[2:])
"""


def test_no_space_for_dicom_leaves_no_nifti_either(
    scans: tuple[Path, object], result: Path, tmp_path: Path
) -> None:
    sizes = {p.name: p.stat().st_size for p in result.glob("mask-on-*")}
    limit = max(size for name, size in sizes.items() if name.endswith(".nii.gz")) + 2000
    assert limit < min(size for name, size in sizes.items() if name.endswith(".dcm"))
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", RESTORE_WITH_LIMIT, str(limit), result / "mask.nii.gz",
         result / "case", "--out", out, "--dicom", scans[0]],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not out.exists()


def test_regions_stay_nested_in_thick_slices(head: Head) -> None:
    affine = np.diag([-1.0, -1.0, 6.0, 1.0])
    affine[:3, 3] = [90, 110, -70]
    thick = Grid((180, 220, 24), affine)
    labels = restore_labels(head.labels, head.grid, thick, np.eye(4))
    wt, tc, et = to_regions(labels)
    assert et.any() and not (et & ~tc).any() and not (tc & ~wt).any()
    volumes = [float((labels == label).sum() * 6) for label in (EDEMA, ENHANCING)]
    expected = [float((head.labels == label).sum()) for label in (EDEMA, ENHANCING)]
    np.testing.assert_allclose(volumes, expected, rtol=0.15)


def test_errors_are_measured_as_they_are_made() -> None:
    """The benchmark's error of a registration that is 3 degrees off is 3 degrees."""
    from scanner.pipeline import Prepared, SourceSpace

    rng = np.random.default_rng(0)
    volume = small_volume()
    series = {m: Acquisition(volume, random_pose(rng)) for m in ("t1ce", "flair")}
    off = rigid(np.array([0, 0, 1.0]), 3.0, np.array([1.0, 0, 0]), 0.0001)
    spaces = {
        "t1ce": SourceSpace(volume.grid, np.linalg.inv(series["t1ce"].pose)),
        "flair": SourceSpace(volume.grid, np.linalg.inv(series["flair"].pose) @ off),
    }
    prepared = Prepared({}, volume.grid, spaces, {}, volume.voxels > 0, "", b"")
    mm, degrees = registration_error(series, prepared, "flair")
    assert degrees == pytest.approx(3, abs=1e-3)
    assert 1.5 < mm < 3.5
