"""Slices to a scripted board and masks back, by the whole command over a link in memory."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from firmware_host import inputs, outputs, run, stream
from firmware_host.outputs import OutputPaths
from glioslice.cases import MODALITIES, read_case
from glioslice.wire.messages import VERSION, HostHello, Mode, Slice, Start
from tests.conftest import BRATS_2023, LPS, Write
from tests.firmware_host.commands import spoil_case
from tests.firmware_host.conftest import Host
from tests.firmware_host.scripted import HELLO, SHA256, serve

Volumes = tuple[NDArray[np.float32], NDArray[np.uint8]]
Listing = Callable[[], list[str]]

KEYS = [
    "case", "complete", "mode", "images", "lossless", "slices", "masks", "seconds",
    "slices_per_second", "device_ms", "bytes_up", "bytes_down", "retransmits", "volumes_ml",
    "diameters_mm", "quality", "model", "mirroring", "missing", "postprocessing", "dice", "labels",
    "date", "version", "shape", "affine", "warnings", "notice",
]  # fmt: skip


def apply_rule(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The scripted board's rule on the whole volume, without slices, windows or codecs."""
    brain = (images != 0).any(axis=0)
    steps = []
    for image in images[:2]:  # flair, t1
        z = (image - image[brain].mean()) / image[brain].std()
        steps.append(np.where(brain, np.rint(np.clip(z, -1.0, 1.0) / 0.04) - 3, -3))
    return np.where(steps[0] > 20, 3, np.where(steps[1] > 20, 2, 0)).astype(np.uint8)


def test_masks_land_on_their_voxels_and_the_report_is_complete(
    host: Host, write_case: Write, volumes: Volumes, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], listing: Listing,
) -> None:  # fmt: skip
    case, out = write_case(), tmp_path / "out" / "m.nii.gz"
    ended = host(
        "delay", serve, "--input", case, "--output", out, "--report", out.parent / "r.json"
    )
    printed = capsys.readouterr()
    assert ended.code == 0, printed.err
    wanted = apply_rule(volumes[0])
    assert {0, 2, 3} == set(np.unique(wanted).tolist())
    written = nib.Nifti1Image.from_filename(out)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.array([0, 1, 2, 4])[wanted])
    np.testing.assert_array_equal(written.affine, LPS)
    assert listing() == ["m.nii.gz", "m.png", "r.json"]

    report = json.loads((out.parent / "r.json").read_text())
    assert list(report) == KEYS
    assert (report["case"], report["complete"], report["mode"]) == ("Case_1", True, "serve")
    assert (report["images"], report["lossless"]) == ("webp", True)
    assert (report["slices"], report["masks"]) == (14, 14)
    assert report["device_ms"] == pytest.approx({"p50": 1.5065, "p90": 1.5117, "p99": 1.51287})
    assert report["bytes_up"] >= len(ended.sent) - 200 > 0 < report["bytes_down"]
    assert report["slices_per_second"] == pytest.approx(14 / report["seconds"], rel=0.05)
    assert report["volumes_ml"]["WT"] == pytest.approx((wanted > 0).sum() / 1000)
    assert report["volumes_ml"]["ET"] == pytest.approx((wanted == 3).sum() / 1000)
    assert report["model"] == {"name": "rule", "sha256": SHA256, "kernels": "unknown"}
    for expected in (
        "p50",
        "volumes in mL: WT",
        "Research software",
        "slices/s",
        "retransmitted",
    ):
        assert expected in printed.out
    assert "segmenting Case_1: 14 of 14" in printed.err


@pytest.mark.slow
@pytest.mark.parametrize(("behaviour", "first"), [("restart", 4), ("restart at the end", 13)])
def test_a_board_that_restarted_gets_the_missing_slices(
    behaviour: str, first: int, host: Host, write_case: Write, volumes: Volumes, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    report = tmp_path / "r.json"
    options = ("--input", write_case(), "--output", tmp_path / "m.nii", "--report", report)
    ended = host(behaviour, serve, *options)
    printed = capsys.readouterr().err
    assert ended.code == 0, printed
    assert "the board has restarted" in printed
    written = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "m.nii").dataobj)
    np.testing.assert_array_equal(written, np.array([0, 1, 2, 4])[apply_rule(volumes[0])])
    assert json.loads(report.read_text())["masks"] == 14
    again = [type(m) for m in ended.board.received].index(HostHello, 1)
    start, *slices = ended.board.received[again + 1 :]
    assert isinstance(start, Start) and (start.slices, start.first) == (14, first)
    assert [m.index for m in slices if isinstance(m, Slice)] == list(range(first, 14))


def test_no_name_of_the_case_crosses_the_link(
    host: Host, write_case: Write, tmp_path: Path
) -> None:
    case = write_case("Mustermann_1961")
    ended = host("serve", serve, "--input", case, "--output", tmp_path / "m.nii.gz")
    assert ended.code == 0
    first, start, *slices = ended.board.received
    assert first == HostHello(Mode.SERVE, 2, 3)
    assert isinstance(start, Start) and (start.slices, start.volume) == (14, None)
    assert [type(message) for message in slices] == [Slice] * 14
    for secret in (b"Mustermann", b"1961", str(tmp_path).encode(), b"nii"):
        assert secret not in ended.sent


def test_another_orientation_and_edition_come_back(
    host: Host, write_case: Write, volumes: Volumes, tmp_path: Path
) -> None:
    affine = np.array([[0, 0, -1, 9], [1, 0, 0, -40], [0, 1, 0, 7], [0, 0, 0, 1.0]])
    case = write_case(suffixes=BRATS_2023, enhancing=3, affine=affine)
    assert host("serve", serve, "--input", case, "--output", tmp_path / "m.nii").code == 0
    written = nib.Nifti1Image.from_filename(tmp_path / "m.nii")
    np.testing.assert_array_equal(written.affine, affine)
    turned = read_case(case)
    np.testing.assert_array_equal(
        turned.space.to_lps(np.asarray(written.dataobj)), apply_rule(turned.images)
    )


@pytest.mark.parametrize("codec", ["raw", "zlib", "webp", "lossless"])
def test_every_codec_gives_the_same_mask(
    codec: str, host: Host, write_case: Write, volumes: Volumes, tmp_path: Path
) -> None:
    options = ("--input", write_case(), "--output", tmp_path / "m.nii", "--images", codec)
    report = tmp_path / "r.json"
    assert host("serve", serve, *options, "--report", report).code == 0
    written = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "m.nii").dataobj)
    np.testing.assert_array_equal(written, np.array([0, 1, 2, 4])[apply_rule(volumes[0])])
    named = "webp" if codec == "lossless" else codec
    assert json.loads(report.read_text())["images"] == named


def test_without_a_case_the_phantom_is_streamed(
    host: Host, write_case: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    small = replace(read_case(write_case()), name="phantom-0")
    monkeypatch.setattr(inputs, "phantom_case", lambda *_: small)
    monkeypatch.chdir(tmp_path)
    assert host("serve", serve, "--report", "r.json").code == 0
    assert "streaming the phantom" in capsys.readouterr().out
    assert (tmp_path / "phantom-0-mask.nii.gz").is_file()
    assert (tmp_path / "phantom-0-mask.png").is_file()
    assert json.loads((tmp_path / "r.json").read_text())["case"] == "phantom-0"


def test_outputs_are_named_after_the_case(
    host: Host, write_case: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = write_case()
    monkeypatch.chdir(tmp_path)
    assert host("serve", serve, case).code == 0
    assert (tmp_path / "Case_1-mask.nii.gz").is_file()
    assert (tmp_path / "Case_1-mask.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "masks", "expected"),
    [
        ("fail", 12, "failed on slices 6, 13 of the case: the network failed"),
        ("stop", 4, "the board reports: stopped by its operator"),
        ("short", 4, "ended the run after 4 of 14"),
        ("silent", 4, "masks are kept"),
        ("restarts", 4, "restarted"),
        ("twice", 4, "slice 1 twice"),
        ("beyond", 4, "slice 500 of 14"),
        ("damaged", 4, "masks are kept"),
        ("unexpected", 4, "unexpected Start"),
    ],
)
def test_an_early_end_keeps_what_arrived(
    behaviour: str, masks: int, expected: str, host: Host, write_case: Write, volumes: Volumes,
    tmp_path: Path, capsys: pytest.CaptureFixture[str], listing: Listing,
) -> None:  # fmt: skip
    out = tmp_path / "out" / "m.nii.gz"
    report = out.parent / "r.json"
    ended = host(behaviour, serve, "--input", write_case(), "--output", out, "--report", report)
    assert ended.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert expected in last
    assert f"{masks} of 14 masks are kept in {out.parent / 'm.partial.nii.gz'}" in last
    assert listing() == ["m.partial.nii.gz", "r.json"]
    content = json.loads(report.read_text())
    assert list(content) == KEYS
    assert (content["complete"], content["masks"], content["slices"]) == (False, masks, 14)
    kept = np.asarray(nib.Nifti1Image.from_filename(out.parent / "m.partial.nii.gz").dataobj)
    missing = (2, 9) if behaviour == "fail" else range(4, 14)
    wanted = np.array([0, 1, 2, 4])[apply_rule(volumes[0])]
    wanted[..., [3 + index for index in missing]] = 0
    np.testing.assert_array_equal(kept, wanted)


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [("lie", "their digest differs"), ("miscount", "15 masks and 0 fail")],
)
def test_masks_that_cannot_be_trusted_leave_nothing(
    behaviour: str, expected: str, host: Host, write_case: Write, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], listing: Listing,
) -> None:  # fmt: skip
    out = tmp_path / "out" / "m.nii.gz"
    files = ("--output", out, "--report", out.parent / "r.json")
    assert host(behaviour, serve, "--input", write_case(), *files).code == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]
    assert listing() == []


def test_an_unknown_model_is_refused_by_its_digest(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    listing: Listing,
) -> None:  # fmt: skip
    options = ("--input", write_case(), "--output", tmp_path / "out" / "m.nii.gz")
    ended = host("serve", serve, *options, allow=False)
    assert ended.code == 2
    assert f"--allow-model {SHA256}" in capsys.readouterr().err
    assert ended.board.received == []  # nothing about the case was sent
    assert listing() == []


def test_a_board_of_another_version(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--input", write_case(), "--output", tmp_path / "m.nii.gz")
    assert host("version", serve, *options).code == 2
    expected = f"uses version {VERSION + 1} of the protocol, this side version {VERSION}"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"modes": frozenset({Mode.PLAY})}, "leave CASE out"),
        ({"slices_at_once": 3}, "3 slices at once"),
        ({"window": (8, 8)}, "larger than the window"),
        ({"image_codecs": 1 << 9}, "no codec in common"),
    ],
)
def test_a_board_that_does_not_fit_the_case(
    change: dict[str, object], expected: str, host: Host, write_case: Write, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], listing: Listing,
) -> None:  # fmt: skip
    hello = replace(HELLO, **change)  # type: ignore[arg-type]
    given = ("--input", write_case(), "--output", tmp_path / "out" / "m.nii.gz")
    assert host("serve", lambda board: board.serve(hello), *given).code == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert expected in error[0]
    assert listing() == []


def test_slices_are_those_of_local_inference(write_case: Write) -> None:
    from glioslice.preprocessing import brain_mask, extract_slices, find_crop, quantize, z_scores

    images = read_case(write_case()).images
    hello = replace(HELLO, modalities=("flair", "t1", "t1ce", "t2"))
    crop, slices = inputs.quantize_slices(images, hello)
    brain = brain_mask(images)
    assert crop == find_crop(brain, hello.window)
    window = extract_slices(z_scores(images, brain, hello.clip), crop)
    local = quantize(window, hello.scale, hello.zero_point)
    np.testing.assert_array_equal(slices, local)
    swapped = inputs.quantize_slices(images, HELLO)[1]
    np.testing.assert_array_equal(swapped, local[..., [1, 0, 3, 2]])


def test_four_files_of_an_orientation_that_only_the_options_tell(
    host: Host, write_case: Write, volumes: Volumes, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    files = dict(zip(MODALITIES, (tmp_path / f"{x}.nii" for x in "abcd"), strict=True))
    for path, image in zip(files.values(), volumes[0], strict=True):
        flipped = nib.Nifti1Image(image[::-1], None)  # RPS; with the codes 0
        flipped.header.set_data_dtype(np.float32)
        nib.save(flipped, path)
    out = tmp_path / "m.nii.gz"
    options = [word for modality, path in files.items() for word in (f"--{modality}", path)]
    ended = host("delay", serve, *options, "--orientation", "RPS", "--output", out)
    assert ended.code == 0, capsys.readouterr().err
    mask = np.asarray(nib.Nifti1Image.from_filename(out).dataobj)
    np.testing.assert_array_equal(mask, np.array([0, 1, 2, 3])[apply_rule(volumes[0])][::-1])
    assert "states no orientation" not in capsys.readouterr().err

    usual = ["--port", "missing", "--output", str(tmp_path / "x.nii")]
    for wrong, reason in (
        (options[:4], "name also --t1ce, --t2"),
        ([*options, "--input", write_case()], "not both"),
        ([*options, "--orientation", "LRS"], "not an orientation"),
    ):
        with pytest.raises(SystemExit, match="2"):
            stream.main([*usual, *map(str, wrong)])
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("how", ["missing", "shape"])
def test_a_bad_case_is_refused_before_the_port_is_opened(
    how: str, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = write_case("Ada")
    expected = spoil_case(case.parent, "Ada", how)
    given = ["--port", "/dev/ttyNONE0", "--input", str(case)]
    with pytest.raises(SystemExit) as end:
        stream.main([*given, "--output", str(tmp_path / "m.nii.gz")])
    printed = capsys.readouterr()
    assert end.value.code == 2
    assert (printed.out, len(printed.err.splitlines())) == ("", 1) and expected in printed.err
    assert not (tmp_path / "m.nii.gz").exists()


def test_a_mask_that_another_program_wrote_meanwhile_stays(
    host: Host, write_case: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], listing: Listing,
) -> None:  # fmt: skip
    mask, write = tmp_path / "out" / "m.nii.gz", outputs.write_outputs

    def write_late(paths: OutputPaths, *of_run: Any) -> list[str]:
        paths.mask.parent.mkdir()
        paths.mask.write_bytes(b"another's")
        return write(paths, *of_run)

    monkeypatch.setattr(outputs, "write_outputs", write_late)
    ended = host("delay", serve, "--input", write_case(), "--output", mask)
    line = capsys.readouterr().err.splitlines()[-1]
    assert ended.code == 2
    assert line.startswith(f"error: {mask}: was written by another program") and "kept in" in line
    assert mask.read_bytes() == b"another's"
    assert listing() == ["m.nii.gz", "m.partial.nii.gz"]


def test_a_study_is_told_from_a_folder_of_cases(write_case: Write, tmp_path: Path) -> None:
    study = tmp_path / "archive" / "patient"
    (study / "dicom" / "series").mkdir(parents=True)
    (study / "dicom" / "series" / "IM1").write_bytes(bytes(128) + b"DICM")
    assert run.holds_series(tmp_path / "archive")
    write_case(folder=study)  # beside its sources
    assert not run.holds_series(tmp_path / "archive")
    assert run.holds_series(study / "dicom")
    assert not run.holds_series(study / "dicom" / "series" / "IM1")
    assert not run.holds_series(None)
