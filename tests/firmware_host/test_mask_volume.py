"""What has arrived of a run: masks that build on each other, empty ones, and how sure they are."""

import numpy as np
import pytest
from numpy.typing import NDArray

from firmware_host.mask_volume import DigestWrong, Run
from glioslice.preprocessing import Crop
from glioslice.wire.codecs import CodecError, encode_mask
from glioslice.wire.messages import (
    UNKNOWN,
    Empty,
    End,
    Error,
    ErrorCode,
    Mask,
    MaskDigest,
    MessageError,
    Mode,
)

WINDOW = (24, 30)
CHANGE = 3


def tumour(size: int) -> NDArray[np.uint8]:
    mask = np.zeros(WINDOW, np.uint8)
    mask[3 : 3 + size, 4 : 4 + size] = 2
    mask[5 : 2 + size, 7 : 3 + size] = 3
    return mask


MASKS = [tumour(8), tumour(9), np.zeros(WINDOW, np.uint8), np.zeros(WINDOW, np.uint8), tumour(11)]


def new_run() -> Run:
    return Run(Mode.SERVE, "webp", Crop((24, 30, 9), (0, 0), (2, 7), WINDOW))


def sent(first: int = 0, codec: int = CHANGE) -> list[Mask | Empty]:
    """What a board sends of the slices from `first` on; times and qualities follow the index."""
    messages: list[Mask | Empty] = []
    previous = None
    for index, mask in enumerate(MASKS[first:], first):
        if mask.any():
            payload = encode_mask(codec, mask, previous)
            messages.append(Mask(index, codec, 1000 * index, payload, 10 * index))
        elif index == first or MASKS[index - 1].any():
            inside = [i for i in (2, 3) if i >= index]
            times, sure = tuple(1000 * i for i in inside), tuple(10 * i for i in inside)
            messages.append(Empty(index, times, sure))
        previous = mask
    return messages


def end_of(first: int = 0) -> End:
    digest = MaskDigest()
    for index, mask in enumerate(MASKS[first:], first):
        digest.add(index, mask.tobytes())
    return End(len(MASKS) - first, 0, 0, digest.hexdigest())


@pytest.mark.parametrize("codec", [1, 3])
def test_every_mask_its_time_and_its_quality_arrive(codec: int) -> None:
    run = new_run()
    assert run.quality.tolist() == [UNKNOWN] * 5
    assert [run.take(message) for message in sent(codec=codec)] == [[0], [1], [2, 3], [4]]
    run.end(end_of())
    assert run.complete
    for index, mask in enumerate(MASKS):
        np.testing.assert_array_equal(run.mask(index), mask)
    assert run.quality.dtype == np.uint8
    assert run.quality.tolist() == [0, 10, 20, 30, 40]
    assert run.times == {i: float(i) for i in range(5)}


@pytest.mark.parametrize("first", range(1, 5))
def test_a_new_part_builds_on_nothing_that_came_before(first: int) -> None:
    run = new_run()
    whole = sent()
    for message in whole:
        if message.index < first:
            run.take(message)
    run.arrived[first:] = False
    assert run.begin_part() == first
    if first in (1, 4):  # what the board before would have sent next
        stale = next(m for m in whole if isinstance(m, Mask) and m.index == first)
        with pytest.raises(CodecError, match="did not arrive"):
            run.take(stale)
        assert not run.arrived[first] and run.quality[first] == UNKNOWN
    for message in sent(first):
        run.take(message)
    run.end(end_of(first))
    assert run.complete
    np.testing.assert_array_equal([run.mask(i) for i in range(5)], MASKS)


def test_a_part_that_begins_again_forgets_quality_too() -> None:
    run = new_run()
    for message in sent():
        run.take(message)
    run.begin_again()
    assert run.quality.tolist() == [UNKNOWN] * 5
    assert [run.take(message) for message in sent()] == [[0], [1], [2, 3], [4]]


def test_a_mask_after_another_one_than_the_board_had_is_told_by_the_digest() -> None:
    run = new_run()
    first, second, *rest = sent()
    run.take(first)
    run.take(Empty(1, (1000,), (9,)))  # not what the board sent
    for message in rest:
        run.take(message)
    with pytest.raises(DigestWrong, match="digest differs"):
        run.end(end_of())
    assert isinstance(second, Mask)


def test_empty_masks_that_are_too_many_change_nothing() -> None:
    run = new_run()
    run.take(sent()[0])
    run.fail(Error(ErrorCode.ENGINE, 2, "the network failed"))
    for wrong, what in (
        (Empty(0, (1,), (1,)), "slice 0 twice"),
        (Empty(1, (1, 1), (1, 1)), "slice 2 twice"),
        (Empty(3, (1, 1, 1), (1, 1, 1)), "slice 5 of 5"),
    ):
        with pytest.raises(MessageError, match=what):
            run.take(wrong)
    assert run.arrived.tolist() == [True, False, False, False, False]
    assert run.quality.tolist() == [0] + [UNKNOWN] * 4
