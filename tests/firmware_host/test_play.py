"""What a playing board sends becomes a volume in the space of the board's own file."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from firmware_host.inputs import played_case, played_crop
from glioslice.cases import read_case
from glioslice.labels import SCHEMES
from glioslice.wire.messages import MessageError
from tests.conftest import LPS, Write
from tests.firmware_host.conftest import Host
from tests.firmware_host.scripted import ScriptedBoard, describe_volume, play

AFFINES = {
    "as we have it": LPS,
    "mirrored": np.array([[1, 0, 0, -20], [0, 1, 0, 3], [0, 0, -1, 9], [0, 0, 0, 1.0]]),
    "turned": np.array([[0, 0, -1, 9], [1, 0, 0, -40], [0, 1, 0, 7], [0, 0, 0, 1.0]]),
}


@pytest.mark.parametrize("name", AFFINES)
def test_a_played_mask_lies_where_the_boards_file_does(
    name: str,
    host: Host,
    write_case: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case, out, report = write_case(affine=AFFINES[name]), tmp_path / "m.nii.gz", tmp_path / "r.json"
    ended = host("serve", play(case), "--output", out, "--report", report)
    printed = capsys.readouterr()
    assert ended.code == 0, printed.err
    truth = nib.Nifti1Image.from_filename(case / "Case_1_seg.nii.gz")
    written = nib.Nifti1Image.from_filename(out)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(truth.dataobj))
    np.testing.assert_array_equal(written.affine, truth.affine)
    content = json.loads(report.read_text())
    assert (content["mode"], content["case"]) == ("play", None)
    assert (content["images"], content["lossless"]) == (None, None)
    assert content["complete"] is True
    assert "montage: none" in printed.out
    assert len(ended.board.received) == 1  # the host's hello: no slice crosses


def test_an_early_end_of_a_played_run(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop_halfway(board: ScriptedBoard) -> None:
        send_mask = board.send_mask

        def limited(index: int, codec: int, mask: NDArray[np.uint8]) -> None:
            if index == 5:
                board.connection.flush(60.0)
                board.connection.close()
            send_mask(index, codec, mask)

        board.send_mask = limited  # type: ignore[method-assign]
        play(case)(board)

    case = write_case()
    assert host("serve", stop_halfway, "--output", tmp_path / "m.nii.gz").code == 2
    assert "5 of 14 masks" in capsys.readouterr().err
    assert (tmp_path / "m.partial.nii.gz").is_file()
    assert not (tmp_path / "m.nii.gz").exists()


def test_a_case_that_the_board_cannot_read(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = host("unreadable", play(write_case()), "--output", tmp_path / "m.nii.gz")
    assert ended.code == 2
    assert "the board reports: the case cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", [0, 1, 2, 3])
def test_the_scheme_of_a_played_case(scheme: int, write_case: Write) -> None:
    case = played_case(describe_volume(write_case(), scheme))
    assert case.scheme == (SCHEMES[scheme - 1] if scheme else SCHEMES[1])  # 0: our own


def test_numbers_that_describe_no_volume(write_case: Write) -> None:
    volume = describe_volume(write_case())
    with pytest.raises(MessageError, match="unknown label scheme 9"):
        played_case(replace(volume, scheme=9))
    with pytest.raises(MessageError, match="not invertible"):
        played_case(replace(volume, affine=(1.0,) * 12))
    assert played_crop(replace(volume, origin=(-31, 35)), (32, 40)).origin == (-31, 35)
    for origin in ((-32, 0), (28, 0), (0, -40), (0, 36)):
        with pytest.raises(MessageError, match="window at"):
            played_crop(replace(volume, origin=origin), (32, 40))


def test_the_shape_of_a_rotated_case(write_case: Write) -> None:
    path = write_case(affine=AFFINES["turned"])
    case, own = played_case(describe_volume(path)), read_case(path).space
    assert case.space.shape == own.shape
    np.testing.assert_array_equal(case.space.affine, own.affine)
