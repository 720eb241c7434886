"""A run that is recorded and then replayed without a board."""

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
from tests.firmware_host.commands import restore_signals
from tests.firmware_host.conftest import Host, Script
from tests.firmware_host.scripted import SHA256, ScriptedBoard, play, serve

KEEP = {"with images": "--record", "masks alone": "--record-masks"}


def replay(*options: object) -> int:
    """Run the command without a board; return its exit code."""
    try:
        stream.main([str(w) for w in ("--allow-model", SHA256, "--at-once", *options)])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.slow
@pytest.mark.parametrize("keep", KEEP.values(), ids=KEEP)
@pytest.mark.parametrize("mode", ["serve", "play"])
def test_a_replay_gives_the_same_files(
    keep: str, mode: str, host: Host, write_case: Write, out: Path
) -> None:
    case, rec = write_case(), out / "a.rec"
    first = out / "first" / "m.nii.gz"
    options = ["--input", case] if mode == "serve" else []
    script: Script = serve if mode == "serve" else play(case)
    assert host("serve", script, "--output", first, keep, rec, *options).code == 0
    assert nib.Nifti1Image.from_filename(first).get_fdata().any()
    for name, more in (("alone", []), ("with", ["--input", case])):
        again, report = out / name / "m.nii.gz", out / name / "r.json"
        assert replay("--replay", rec, "--output", again, "--report", report, *more) == 0
        assert again.read_bytes() == first.read_bytes()
        content = json.loads(report.read_text())
        assert (content["mode"], content["complete"]) == (mode, True)
        assert content["images"] == ("webp" if mode == "serve" else None)
        assert content["case"] == (case.name if more else None)
        assert (out / name / "m.png").exists() is bool(more)
    if mode == "serve":
        assert (out / "with" / "m.png").read_bytes() == (out / "first" / "m.png").read_bytes()


def runs(data: bytes, size: int = 6) -> set[bytes]:
    return {data[place : place + size] for place in range(len(data) - size + 1)}


@pytest.mark.slow
def test_no_image_is_in_a_recording_of_masks(host: Host, write_case: Write, out: Path) -> None:
    held: dict[str, set[bytes]] = {}
    for name, keep in KEEP.items():
        rec = out / f"{name}.rec"
        options = ["--input", write_case(), "--images", "raw", "--output", out / f"{name}.nii.gz"]
        ended = host("serve", serve, *options, keep, rec)
        assert ended.code == 0
        payloads = [m.payload for m in ended.board.received if isinstance(m, Slice)]
        images = {run for payload in payloads for run in runs(payload) if len(set(run)) > 2}
        assert len(images) > 1000
        kept = b"".join(r.data for r in records(rec)) + rec.read_bytes()
        held[name] = images & runs(kept)
    assert len(held["with images"]) > 1000
    assert held["masks alone"] == set()
    assert (out / "masks alone.rec").stat().st_size < (out / "with images.rec").stat().st_size / 4


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["stop", "short", "fail", "silent", "damaged", "twice"])
def test_a_recorded_failure_fails_in_the_replay_too(
    behaviour: str,
    host: Host,
    write_case: Write,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case, rec = write_case(), out / "a.rec"
    options = ["--input", case, "--record-masks", rec, "--output", out / "m.nii.gz"]
    assert host(behaviour, serve, *options).code == 2
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


def test_a_wrong_digest_is_refused_in_the_replay_too(
    host: Host, write_case: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, rec = write_case(), out / "a.rec"
    options = ["--input", case, "--record", rec, "--output", out / "m.nii.gz"]
    assert host("lie", serve, *options).code == 2
    assert replay("--replay", rec, "--output", out / "again.nii.gz") == 2
    assert capsys.readouterr().err.count("their digest differs; nothing was kept") == 2
    assert [path.name for path in out.iterdir()] == ["a.rec"]


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["restart", "restart at the end"])
def test_a_restart_is_replayed(
    behaviour: str,
    host: Host,
    write_case: Write,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case, rec = write_case(), out / "a.rec"
    options = ["--input", case, "--record-masks", rec, "--output", out / "m.nii.gz"]
    assert host(behaviour, serve, *options).code == 0
    assert replay("--replay", rec, "--output", out / "again.nii.gz") == 0
    assert capsys.readouterr().err.count("the board has restarted") == 2
    assert (out / "m.nii.gz").read_bytes() == (out / "again.nii.gz").read_bytes()


def test_images_can_be_removed_from_a_recording_later(
    host: Host, write_case: Write, out: Path
) -> None:
    full, reduced, first = out / "full.rec", out / "reduced.rec", out / "m.nii.gz"
    options = ["--input", write_case(), "--record", full, "--output", first]
    assert host("serve", serve, *options).code == 0
    options = ["--replay", full, "--record-masks", reduced, "--output", out / "second.nii.gz"]
    assert replay(*options) == 0
    assert replay("--replay", reduced, "--output", out / "third.nii.gz") == 0
    assert (out / "third.nii.gz").read_bytes() == first.read_bytes()
    assert reduced.stat().st_size < 10_000


def test_a_recording_is_never_written_over_another_file(
    host: Host, write_case: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out.mkdir()
    rec = out / "a.rec"
    rec.write_bytes(b"mine")
    assert replay("--replay", rec, "--record", rec, "--output", out / "m.nii.gz") == 2
    assert "already exists" in capsys.readouterr().err
    assert rec.read_bytes() == b"mine"


@pytest.mark.slow
def test_another_case_is_refused(
    host: Host, write_case: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, rec = write_case(), out / "a.rec"
    options = ["--input", case, "--record", rec, "--output", out / "m.nii.gz"]
    assert host("serve", serve, *options).code == 0
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
        assert "recording of another case" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--port", "sim://"], "leave --port out"),
        (["--baud", "9600", "--images", "raw"], "leave --baud and --images out"),
        (["--record", "a", "--record-masks", "b"], "not allowed with"),
    ],
)
def test_options_that_do_not_go_with_a_replay(
    options: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay("--replay", "some.rec", *options) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"GLWR\1", b"x" * 50])
def test_a_recording_that_cannot_be_read_is_one_line(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "a.rec").write_bytes(content)
    assert replay("--replay", tmp_path / "a.rec", "--output", tmp_path / "m.nii.gz") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.rec" in line


def test_a_recording_without_a_run_cannot_be_replayed(
    host: Host, write_case: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The host leaves before it has recorded where the masks belong."""
    rec = out / "a.rec"

    def unreadable(board: ScriptedBoard) -> None:
        board.behaviour = "version"
        board.open()

    options = ["--input", write_case(), "--record", rec, "--output", out / "m.nii.gz"]
    assert host("version", unreadable, *options).code == 2
    capsys.readouterr()
    assert replay("--replay", rec, "--output", out / "n.nii.gz") == 2
    assert "nothing to replay" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_is_interrupted_leaves_its_recording(write_case: Write, out: Path) -> None:
    options = [sys.executable, ROOT / "firmware_host" / "stream.py", "--port", "sim://?baud=57600"]
    options += ["--output", out / "m.nii.gz", "--record", out / "a.rec", "--images", "raw"]
    process = subprocess.Popen(
        [str(option) for option in options],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=restore_signals,
    )
    end = time.monotonic() + 300
    while sum(part.stat().st_size for part in out.glob(f".{process.pid}-*a.rec")) < 30_000:
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    found = list(records(out / "a.rec"))
    assert sum(len(one.data) for one in found if one.kind is Kind.UP) > 20_000


def test_every_record_of_a_run_can_be_printed(host: Host, write_case: Write, out: Path) -> None:
    from glioslice.wire.dump import format_recording

    rec = out / "a.rec"
    options = ["--input", write_case(), "--record", rec, "--output", out / "m.nii.gz"]
    assert host("fail", serve, *options).code == 2
    lines = list(format_recording(records(rec)))
    assert any("where the masks belong" in line for line in lines)
    assert "not understood" not in "".join(lines)
    with pytest.raises(GliosliceError):
        list(format_recording(records(out / "none")))
