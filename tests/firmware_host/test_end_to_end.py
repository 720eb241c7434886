"""The host and the real device process, connected by a simulated line only."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from device.board import make_board
from device.engine import Engine
from firmware_host.inputs import quantize_slices
from glioslice.cases import Case, read_case
from glioslice.labels import to_labels, to_scheme
from glioslice.model_card import shipped_folder
from glioslice.phantom.head import make_phantom
from glioslice.postprocessing import postprocess
from glioslice.preprocessing import restore_volume
from glioslice.wire.codecs import decode_image, encode_image
from tests.conftest import ROOT, Write
from tests.firmware_host.commands import (
    STREAM,
    left_behind,
    list_processes,
    restore_signals,
    stream,
    write_slab,
)

BAD_LINE = "sim://?baud=921600&errors=1e-5&loss=0.005"
MODEL = "compact-int8.tflite"
LOSSY = 3
KILLS = 50


def evaluated(case: Path, folder: Path) -> Path:
    """Return the mask that evaluation writes for the case."""
    options = ["--model", shipped_folder("compact") / MODEL, "--data", case, "--masks", folder]
    subprocess.run(
        [sys.executable, str(ROOT / "training" / "evaluate.py"), *map(str, options)],
        capture_output=True, check=True,
    )  # fmt: skip
    return folder / f"{case.name}-mask.nii.gz"


def stream_and_compare(case: Path, wanted: Path, out: Path, mode: str) -> None:
    """The mask that comes over the link is that of evaluation to the byte."""
    options = ["--port", BAD_LINE, "--input", case, "--output", out / "m.nii.gz"]
    options += ["--report", out / "r.json"]
    options += ["--play"] if mode == "play" else ["--images", "lossless"]
    done = stream(*options)
    assert done.returncode == 0, done.stderr
    assert (out / "m.nii.gz").read_bytes() == wanted.read_bytes()
    assert np.unique(nib.Nifti1Image.from_filename(wanted).get_fdata()).size > 2  # a tumour
    report = json.loads((out / "r.json").read_text())
    assert (report["case"], report["complete"], report["mode"]) == (case.name, True, mode)
    assert report["masks"] == report["slices"]
    assert report["images"] == ("webp" if mode == "serve" else None)
    assert report["lossless"] is (True if mode == "serve" else None)
    assert (out / "m.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def slab() -> NDArray[np.float32]:
    """Twelve slices through the phantom's tumour, (4, X, Y, 12)."""
    phantom = make_phantom(0)
    middle = int(np.argmax((phantom.labels > 0).sum(axis=(0, 1))))
    return phantom.images[..., middle - 6 : middle + 6]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["serve", "play"])
@pytest.mark.parametrize("edition", ["2018", "2023"])
def test_the_mask_is_that_of_evaluation(
    mode: str, edition: str, slab: NDArray[np.float32], tmp_path: Path
) -> None:
    case = write_slab(tmp_path / "Slab_1", slab, edition)
    wanted, out = evaluated(case, tmp_path / "wanted"), tmp_path / "out"
    stream_and_compare(case, wanted, out, mode)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("serve", "BraTS19_CBICA_ASK_1"),
        ("play", "BraTS19_CBICA_ASK_1"),
        ("play", "BraTS2021_01657"),  # its files have a qform alone
    ],
)
def test_a_real_patient_over_a_bad_line(
    mode: str, name: str, real_cases: Path, tmp_path: Path
) -> None:
    case = real_cases / name
    wanted, out = evaluated(case, tmp_path / "wanted"), tmp_path / "out"
    stream_and_compare(case, wanted, out, mode)


def decoded_and_segmented(case: Case) -> NDArray[np.uint8]:
    """Return labels (X, Y, Z) by local inference on slices that were sent as lossy."""
    model = shipped_folder("compact") / MODEL
    engine = Engine(model)
    crop, slices = quantize_slices(case.images, make_board(engine, model).hello)
    x, y, channels = slices.shape[1:]
    came = [decode_image(LOSSY, encode_image(LOSSY, one), (x, y, channels)) for one in slices]
    assert all((back != one).any() for back, one in zip(came, slices, strict=True))
    masks = [to_labels(engine.regions(engine.logits(one))) for one in came]
    return postprocess(restore_volume(np.stack(masks), crop), engine.card.rules).labels


def stream_lossily(case: Path, out: Path) -> None:
    """By default slices lose something, and masks are those of what the board decodes."""
    options = ["--port", BAD_LINE, "--input", case, "--output", out / "m.nii.gz"]
    done = stream(*options, "--report", out / "r.json")
    assert done.returncode == 0, done.stderr
    read = read_case(case)
    came = np.asarray(nib.Nifti1Image.from_filename(out / "m.nii.gz").dataobj)
    wanted = decoded_and_segmented(read)
    np.testing.assert_array_equal(read.space.to_lps(came), to_scheme(wanted, read.scheme))
    assert np.unique(wanted).size > 2  # a tumour
    report = json.loads((out / "r.json").read_text())
    assert (report["images"], report["lossless"], report["complete"]) == ("lossy", False, True)
    assert report["bytes_up"] < 6000 * report["slices"]


@pytest.mark.slow
def test_lossy_slices_give_the_masks_of_what_was_decoded(
    slab: NDArray[np.float32], tmp_path: Path
) -> None:
    stream_lossily(write_slab(tmp_path / "Slab_1", slab, "2023"), tmp_path / "out")


@pytest.mark.real
@pytest.mark.slow
def test_a_real_patient_as_lossy_slices(real_cases: Path, tmp_path: Path) -> None:
    stream_lossily(real_cases / "Brats18_2013_11_1", tmp_path / "out")


@pytest.mark.slow
def test_the_device_is_found_healthy() -> None:
    done = stream("--doctor", "--port", "sim://")
    assert done.returncode == 0
    assert "healthy: sim://: a board replies" in done.stdout
    assert "(known here)" in done.stdout
    assert "256 of 256 byte values up, 256 down" in done.stdout


def board_of(tag: Path) -> int | None:
    """Return the process of the device that runs the model in the folder `tag`."""
    for line in list_processes():
        if "-m device" in line and str(tag) in line:
            return int(line.split()[0])
    return None


@dataclass(frozen=True)
class Fall:
    """Which end was killed how, how the host ended, what it printed, and the files that it left."""

    victim: str
    number: signal.Signals
    code: int
    printed: list[str]
    files: list[str]


def wait_for_moment(draw: random.Random, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a random moment: while the programs start, or within or after the run.

    The log tells how far the run is, however fast the machine is.
    """
    if draw.random() < 0.3:
        time.sleep(draw.uniform(0.0, 1.5))
        return
    wanted = draw.choice([" of 14", ": 6 of 14", ": 12 of 14", "mask: "])
    while wanted not in log.read_text() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(draw.uniform(0.0, 0.2))


def kill_once(draw: random.Random, case: Path, folder: Path, out: Path) -> Fall:
    """Start a run and kill one of its ends at a random moment."""
    shutil.rmtree(out, ignore_errors=True)
    options = ["--port", "sim://?baud=115200", "--input", case, "--model", folder / MODEL]
    options += ["--output", out / "m.nii.gz", "--report", out / "r.json"]
    options += ["--play"] if draw.random() < 0.3 else []
    # In a file: a board that outlives its host for a moment would hold a pipe open.
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*STREAM, *map(str, options)],
            stdout=log,
            stderr=log,
            preexec_fn=restore_signals,
        )
    wait_for_moment(draw, process, folder / "log")
    number = draw.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
    victim = draw.choice(("host", "board"))
    pid = process.pid if victim == "host" else board_of(folder)
    if pid is not None and process.poll() is None:
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, number)
    code = process.wait(timeout=300)
    assert left_behind(folder) == []
    files = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    return Fall(victim, number, code, (folder / "log").read_text().splitlines(), files)


def check_fall(fall: Fall, out: Path) -> None:
    """Every file is whole and has the right name; the host reports why it ended."""
    # SIGKILL, or before the command took signals over; Python's own start has a code of its own
    starting = any("init_import_site" in line for line in fall.printed)
    at_once = fall.code == -fall.number or (starting and fall.number is signal.SIGINT)
    files = fall.files
    if at_once and fall.number is signal.SIGKILL:  # what was being written has a hidden name
        files = [name for name in files if not name.startswith(".")]
    assert set(files) <= {"m.nii.gz", "m.partial.nii.gz", "m.png", "r.json"}, fall
    for name in files:
        if name.endswith(".nii.gz"):
            assert nib.Nifti1Image.from_filename(out / name).get_fdata().shape == (28, 36, 20)
    if "r.json" in files:
        assert json.loads((out / "r.json").read_text())["complete"] is ("m.nii.gz" in files), fall
    if fall.code == 0:
        assert files == ["m.nii.gz", "m.png", "r.json"], fall
    elif not at_once:
        assert fall.code == (130 if fall.victim == "host" else 2), fall
        traced = any("Traceback" in line for line in fall.printed)
        assert not traced or fall.victim == "board", fall  # Python itself, while it starts
        starts = (
            "interrupted"
            if fall.victim == "host"
            else ("error: sim:", "error: the board", "error: no reply")
        )
        own = [line for line in fall.printed if line.startswith(starts)]  # the device has its own
        assert len(own) == 1, fall


@pytest.mark.slow
def test_killing_either_end_at_any_moment(write_case: Write, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (MODEL, "card.json"):
        shutil.copy(shipped_folder("compact") / name, folder)
    draw = random.Random(3)
    case = write_case()
    out = tmp_path / "out"
    falls = []
    for _ in range(KILLS):
        falls.append(kill_once(draw, case, folder, out))
        check_fall(falls[-1], out)
    for fall in falls:
        print(fall.victim, fall.number.name, fall.code, fall.files, fall.printed[-2:])
    for victim in ("host", "board"):  # the moments were spread
        assert any(f.victim == victim and "m.partial.nii.gz" in f.files for f in falls)
