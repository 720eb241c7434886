"""A run that is recorded, and replayed without a board."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from firmware_host import stream
from glioslice.errors import GliosliceError
from glioslice.wire.capture import Kind, records
from glioslice.wire.messages import Slice
from tests.conftest import LPS, ROOT, Write, save
from tests.firmware_host.conftest import Desk, Script
from tests.firmware_host.scripted import SHA256, ScriptedBoard
from tests.firmware_host.test_command import hear_signals
from tests.firmware_host.test_playing import play

KEEP = {"with images": "--record", "masks alone": "--record-masks"}


def serve(board: ScriptedBoard) -> None:
    board.serve()


def replay(*words: object) -> int:
    """Run the command without a board; return its exit code."""
    try:
        stream.main([str(w) for w in ("--allow-model", SHA256, "--at-once", *words)])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize("keep", KEEP.values(), ids=KEEP)
@pytest.mark.parametrize("mode", ["serve", "play"])
def test_a_replay_gives_the_same_files(
    keep: str, mode: str, desk: Desk, write_case: Write, out: Path
) -> None:
    case, rec = write_case(), out / "a.rec"
    first = out / "first" / "m.nii.gz"
    words = ["--input", case] if mode == "serve" else []
    script: Script = serve if mode == "serve" else play(case)
    assert desk("serve", script, "--output", first, keep, rec, *words).code == 0
    assert nib.Nifti1Image.from_filename(first).get_fdata().any()
    for name, more in (("alone", []), ("with", ["--input", case])):
        again, report = out / name / "m.nii.gz", out / name / "r.json"
        assert replay("--replay", rec, "--output", again, "--report", report, *more) == 0
        assert again.read_bytes() == first.read_bytes()
        said = json.loads(report.read_text())
        assert (said["mode"], said["complete"]) == (mode, True)
        assert said["images"] == ("webp" if mode == "serve" else None)
        assert said["case"] == (case.name if more else None)
        assert (out / name / "m.png").exists() is bool(more)
    if mode == "serve":
        assert (out / "with" / "m.png").read_bytes() == (out / "first" / "m.png").read_bytes()


def runs(data: bytes, size: int = 6) -> set[bytes]:
    return {data[place : place + size] for place in range(len(data) - size + 1)}


def test_no_image_is_in_a_recording_of_masks(desk: Desk, write_case: Write, out: Path) -> None:
    held: dict[str, set[bytes]] = {}
    for name, keep in KEEP.items():
        rec = out / f"{name}.rec"
        words = ["--input", write_case(), "--images", "raw", "--output", out / f"{name}.nii.gz"]
        ended = desk("serve", serve, *words, keep, rec)
        assert ended.code == 0
        payloads = [m.payload for m in ended.board.heard if isinstance(m, Slice)]
        images = {run for payload in payloads for run in runs(payload) if len(set(run)) > 2}
        assert len(images) > 1000
        kept = b"".join(r.data for r in records(rec)) + rec.read_bytes()
        held[name] = images & runs(kept)
    assert len(held["with images"]) > 1000
    assert held["masks alone"] == set()
    assert (out / "masks alone.rec").stat().st_size < (out / "with images.rec").stat().st_size / 4


@pytest.mark.parametrize("behaviour", ["stop", "short", "fail", "silent", "damaged", "twice"])
def test_a_failed_session_is_kept_and_fails_again(
    behaviour: str,
    desk: Desk,
    write_case: Write,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case, rec = write_case(), out / "a.rec"
    words = ["--input", case, "--record-masks", rec, "--output", out / "m.nii.gz"]
    assert desk(behaviour, serve, *words).code == 2
    first = capsys.readouterr().err.splitlines()[-1]
    assert replay("--replay", rec, "--output", out / "again.nii.gz") == 2
    second = capsys.readouterr().err.splitlines()[-1]
    kept = re.compile(r"\d+ of \d+ masks are kept")
    assert kept.findall(first) == kept.findall(second) != []
    if behaviour == "silent":
        assert "the recording ends here" in second
    else:
        assert first.partition(";")[0] == second.partition(";")[0]
    partial = [out / f"{name}.partial.nii.gz" for name in ("m", "again")]
    assert partial[0].read_bytes() == partial[1].read_bytes()


def test_masks_that_the_board_did_not_make_are_refused_again(
    desk: Desk, write_case: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, rec = write_case(), out / "a.rec"
    words = ["--input", case, "--record", rec, "--output", out / "m.nii.gz"]
    assert desk("lie", serve, *words).code == 2
    assert replay("--replay", rec, "--output", out / "again.nii.gz") == 2
    assert capsys.readouterr().err.count("their digest differs; nothing was kept") == 2
    assert [path.name for path in out.iterdir()] == ["a.rec"]


@pytest.mark.parametrize("behaviour", ["restart", "restart at the end"])
def test_a_run_in_two_parts_is_replayed_in_two_parts(
    behaviour: str, desk: Desk, write_case: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, rec = write_case(), out / "a.rec"
    words = ["--input", case, "--record-masks", rec, "--output", out / "m.nii.gz"]
    assert desk(behaviour, serve, *words).code == 0
    assert replay("--replay", rec, "--output", out / "again.nii.gz") == 0
    assert capsys.readouterr().err.count("the board has restarted; it does what is missing") == 2
    assert (out / "m.nii.gz").read_bytes() == (out / "again.nii.gz").read_bytes()


def test_images_can_be_taken_out_of_a_recording_later(
    desk: Desk, write_case: Write, out: Path
) -> None:
    full, bare, first = out / "full.rec", out / "bare.rec", out / "m.nii.gz"
    words = ["--input", write_case(), "--record", full, "--output", first]
    assert desk("serve", serve, *words).code == 0
    words = ["--replay", full, "--record-masks", bare, "--output", out / "second.nii.gz"]
    assert replay(*words) == 0
    assert replay("--replay", bare, "--output", out / "third.nii.gz") == 0
    assert (out / "third.nii.gz").read_bytes() == first.read_bytes()
    assert bare.stat().st_size < 10_000


def test_a_recording_is_never_written_over_another_file(
    desk: Desk, write_case: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out.mkdir()
    rec = out / "a.rec"
    rec.write_bytes(b"mine")
    assert replay("--replay", rec, "--record", rec, "--output", out / "m.nii.gz") == 2
    assert "is there already; name another file, or add --force" in capsys.readouterr().err
    assert rec.read_bytes() == b"mine"


def test_another_case_is_refused(
    desk: Desk, write_case: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, rec = write_case(), out / "a.rec"
    words = ["--input", case, "--record", rec, "--output", out / "m.nii.gz"]
    assert desk("serve", serve, *words).code == 0
    elsewhere = LPS.copy()
    elsewhere[:3, 3] += 5
    moved = write_case("Case_2", affine=elsewhere)
    other = write_case("Case_3")
    image = nib.Nifti1Image.from_filename(other / "Case_3_t1.nii.gz")
    voxels = np.asarray(image.dataobj).copy()
    voxels[2, 6:9, 5:8] = 100.0
    save(other / "Case_3_t1.nii.gz", voxels)
    for another in (moved, other):
        assert replay("--replay", rec, "--input", another, "--output", out / "n.nii.gz") == 2
        assert "recording of another case than --input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--port", "sim://"], "leave --port out"),
        (["--baud", "9600", "--images", "raw"], "leave --baud and --images out"),
        (["--record", "a", "--record-masks", "b"], "not allowed with"),
    ],
)
def test_words_that_do_not_go_with_a_replay(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay("--replay", "some.rec", *words) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file"), (b"GLWR\1", "cut short"), (b"x" * 50, "no recording")],
)
def test_a_recording_that_cannot_be_read_is_one_line(
    content: bytes | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "a.rec").write_bytes(content)
    assert replay("--replay", tmp_path / "a.rec", "--output", tmp_path / "m.nii.gz") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line


def test_a_recording_of_a_run_that_never_began_says_so(
    desk: Desk, write_case: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The host goes before it says where the masks belong: its case cannot be used."""
    rec = out / "a.rec"

    def unreadable(board: ScriptedBoard) -> None:
        board.behaviour = "version"
        board.open()

    words = ["--input", write_case(), "--record", rec, "--output", out / "m.nii.gz"]
    assert desk("version", unreadable, *words).code == 2
    capsys.readouterr()
    assert replay("--replay", rec, "--output", out / "n.nii.gz") == 2
    assert "there is nothing to replay" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_is_interrupted_leaves_its_recording(write_case: Write, out: Path) -> None:
    words = [sys.executable, ROOT / "firmware_host" / "stream.py", "--port", "sim://?baud=57600"]
    words += ["--output", out / "m.nii.gz", "--record", out / "a.rec", "--images", "raw"]
    process = subprocess.Popen(
        [str(word) for word in words], stderr=subprocess.PIPE, text=True, preexec_fn=hear_signals
    )
    end = time.monotonic() + 60
    hidden = out / f".{process.pid}-a.rec"
    while not (hidden.exists() and hidden.stat().st_size > 30_000) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    found = list(records(out / "a.rec"))
    assert sum(len(one.data) for one in found if one.kind is Kind.UP) > 20_000


def test_every_record_of_a_run_can_be_printed(desk: Desk, write_case: Write, out: Path) -> None:
    from glioslice.wire.dump import printed

    rec = out / "a.rec"
    words = ["--input", write_case(), "--record", rec, "--output", out / "m.nii.gz"]
    assert desk("fail", serve, *words).code == 2
    lines = list(printed(records(rec)))
    assert any("where the masks belong" in line for line in lines)
    assert "not understood" not in "".join(lines)
    with pytest.raises(GliosliceError):
        list(printed(records(out / "none")))
