"""What a playing board sends becomes a volume in the space of the board's own file."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from firmware_host.inputs import crop_of_volume, source_of_volume
from glioslice.cases import find_case, read_case
from glioslice.labels import SCHEMES
from glioslice.preprocessing import brain_of, crop_of
from glioslice.wire.messages import MessageError, Volume
from tests.conftest import LPS, Write
from tests.firmware_host.conftest import Desk
from tests.firmware_host.scripted import HELLO, ScriptedBoard

AFFINES = {
    "as the kit": LPS,
    "mirrored": np.array([[1, 0, 0, -20], [0, 1, 0, 3], [0, 0, -1, 9], [0, 0, 0, 1.0]]),
    "turned": np.array([[0, 0, -1, 9], [1, 0, 0, -40], [0, 1, 0, 7], [0, 0, 0, 1.0]]),
}


def volume_of(path: Path, scheme: int = 1) -> Volume:
    """What a board says of a case, from its files."""
    case = read_case(find_case(path))
    crop = crop_of(brain_of(case.images), HELLO.window)
    numbers = tuple(case.space.affine[:3].ravel().tolist())
    return Volume(crop.shape, crop.origin, crop.z, (1.0, 1.0, 1.0), numbers, scheme, (1, 1))


def play(path: Path) -> Callable[[ScriptedBoard], None]:
    """Return a board that plays the expert's mask of the case at `path`."""
    labels = read_case(find_case(path)).labels
    assert labels is not None
    return lambda board: board.play(volume_of(path), labels)


@pytest.mark.parametrize("name", AFFINES)
def test_a_played_mask_lies_where_the_boards_file_does(
    name: str, desk: Desk, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out, report = write_case(affine=AFFINES[name]), tmp_path / "m.nii.gz", tmp_path / "r.json"
    ended = desk("serve", play(case), "--output", out, "--report", report)
    said = capsys.readouterr()
    assert ended.code == 0, said.err
    truth = nib.Nifti1Image.from_filename(case / "Case_1_seg.nii.gz")
    written = nib.Nifti1Image.from_filename(out)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(truth.dataobj))
    np.testing.assert_array_equal(written.affine, truth.affine)
    content = json.loads(report.read_text())
    assert (content["mode"], content["case"]) == ("play", None)
    assert (content["images"], content["lossless"]) == (None, None)
    assert content["complete"] is True
    assert "montage: none, the images are on the board" in said.out
    assert len(ended.board.heard) == 1  # the host's hello: no slice crosses


def test_an_early_end_of_a_played_run(
    desk: Desk, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop_halfway(board: ScriptedBoard) -> None:
        answer = board.answer

        def limited(index: int, codec: int, mask: NDArray[np.uint8]) -> None:
            if index == 5:
                board.connection.flush(5.0)
                board.connection.close()
            answer(index, codec, mask)

        board.answer = limited  # type: ignore[method-assign]
        play(case)(board)

    case = write_case()
    assert desk("serve", stop_halfway, "--output", tmp_path / "m.nii.gz").code == 2
    assert "the far end has ended the session; 5 of 14 masks" in capsys.readouterr().err
    assert (tmp_path / "m.partial.nii.gz").is_file()
    assert not (tmp_path / "m.nii.gz").exists()


def test_a_case_that_the_board_cannot_read(
    desk: Desk, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = desk("unreadable", play(write_case()), "--output", tmp_path / "m.nii.gz")
    assert ended.code == 2
    assert "the board has given up: the case cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", [0, 1, 2, 3])
def test_the_scheme_of_the_source(scheme: int, write_case: Write) -> None:
    source = source_of_volume(volume_of(write_case(), scheme))
    assert source.scheme == (SCHEMES[scheme - 1] if scheme else SCHEMES[1])  # 0: the kit's own


def test_numbers_that_describe_no_volume(write_case: Write) -> None:
    volume = volume_of(write_case())
    with pytest.raises(MessageError, match="unknown label scheme 9"):
        source_of_volume(replace(volume, scheme=9))
    with pytest.raises(MessageError, match="not invertible"):
        source_of_volume(replace(volume, affine=(1.0,) * 12))
    assert crop_of_volume(replace(volume, origin=(-31, 35)), (32, 40)).origin == (-31, 35)
    for origin in ((-32, 0), (28, 0), (0, -40), (0, 36)):
        with pytest.raises(MessageError, match="window at"):
            crop_of_volume(replace(volume, origin=origin), (32, 40))


def test_the_shape_of_a_turned_source(write_case: Write) -> None:
    path = write_case(affine=AFFINES["turned"])
    source, own = source_of_volume(volume_of(path)), read_case(find_case(path)).space
    assert source.space.shape == own.shape
    np.testing.assert_array_equal(source.space.affine, own.affine)
