"""A case without some of its modalities: their channels do not cross the link."""

from dataclasses import replace

import pytest

from device.board import make_board
from device.engine import Engine
from glioslice.model_card import shipped_folder
from glioslice.preprocessing import quantize
from glioslice.wire.codecs import encode_image
from glioslice.wire.messages import Error, ErrorCode, HostHello, Mode, Slice, Start
from tests.device.conftest import MODEL, Slab, StartBoard, digest

FLAIR, T1, T1CE, T2 = range(4)


@pytest.mark.parametrize("codec", [0, 1, 2])
def test_the_network_sees_zero_points_in_absent_channels(
    codec: int, start: StartBoard, patient: Slab
) -> None:
    host = start().host()
    hello = host.connect()
    assert hello.modalities == ("flair", "t1", "t1ce", "t2")
    images = quantize(patient.z_scores, hello.scale, hello.zero_point)
    images[..., [T1, T2]] = hello.zero_point
    whole = [Slice(i, codec, encode_image(codec, one)) for i, one in enumerate(images)]
    part = [Slice(i, codec, encode_image(codec, one)) for i, one in enumerate(images[..., ::2])]
    choice = HostHello(Mode.SERVE, codec, 1)
    host.send(choice, Start(len(images)), *whole)
    expected = host.receive_run()[2]
    host.send(choice, Start(len(images), absent=1 << T1 | 1 << T2), *part)
    masks, errors, end = host.receive_run()
    assert (errors, end.masks, end.digest) == ([], len(images), expected.digest)
    assert digest(masks, hello.window) == end.digest
    if codec == 1:  # what is left out costs nothing, and even a constant channel costs little
        assert sum(len(one.payload) for one in part) < sum(len(one.payload) for one in whole)


def test_an_image_of_all_channels_is_refused_where_some_are_absent(
    start: StartBoard, patient: Slab
) -> None:
    host = start().host()
    slices = patient.slices(host.connect(), 1)
    host.send(HostHello(Mode.SERVE, 1, 3), Start(len(slices), absent=1 << T1), *slices)
    masks, errors, _ = host.receive_run()
    assert (masks, {error.code for error in errors}) == ([], {ErrorCode.SLICE})


@pytest.mark.parametrize("absent", [0b1000, 0b0111])
def test_channels_that_the_board_does_not_have_are_refused(
    absent: int, start: StartBoard, engine: Engine
) -> None:
    board = make_board(engine, shipped_folder("nano") / MODEL)
    three = replace(board, hello=replace(board.hello, modalities=("t1ce", "flair", "t2")))
    host = start(three).host()
    host.connect()
    host.send(HostHello(Mode.SERVE, 1, 3), Start(3, absent=absent))
    refusal = host.receive()
    assert isinstance(refusal, Error) and refusal.code is ErrorCode.REFUSED
    assert f"{absent:04b}" in refusal.text
