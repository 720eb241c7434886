"""The masks of a run: coded as changes, empty ones, and their confidence."""

import numpy as np
import pytest
from numpy.typing import NDArray

from firmware_host.mask_volume import DigestMismatch, MaskVolume
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


def new_volume() -> MaskVolume:
    return MaskVolume(Mode.SERVE, "webp", Crop((24, 30, 9), (0, 0), (2, 7), WINDOW))


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
def test_masks_times_and_quality_are_stored(codec: int) -> None:
    masks = new_volume()
    assert masks.quality.tolist() == [UNKNOWN] * 5
    assert [masks.add(message) for message in sent(codec=codec)] == [[0], [1], [2, 3], [4]]
    masks.finish(end_of())
    assert masks.complete
    for index, mask in enumerate(MASKS):
        np.testing.assert_array_equal(masks.mask(index), mask)
    assert masks.quality.dtype == np.uint8
    assert masks.quality.tolist() == [0, 10, 20, 30, 40]
    assert masks.milliseconds == {i: float(i) for i in range(5)}


@pytest.mark.parametrize("first", range(1, 5))
def test_a_new_session_does_not_build_on_masks_of_the_last(first: int) -> None:
    masks = new_volume()
    whole = sent()
    for message in whole:
        if message.index < first:
            masks.add(message)
    masks.received[first:] = False
    assert masks.start_session() == first
    if first in (1, 4):  # what the board before would have sent next
        stale = next(m for m in whole if isinstance(m, Mask) and m.index == first)
        with pytest.raises(CodecError, match="did not arrive"):
            masks.add(stale)
        assert not masks.received[first] and masks.quality[first] == UNKNOWN
    for message in sent(first):
        masks.add(message)
    masks.finish(end_of(first))
    assert masks.complete
    np.testing.assert_array_equal([masks.mask(i) for i in range(5)], MASKS)


def test_reset_discards_quality_too() -> None:
    masks = new_volume()
    for message in sent():
        masks.add(message)
    masks.reset()
    assert masks.quality.tolist() == [UNKNOWN] * 5
    assert [masks.add(message) for message in sent()] == [[0], [1], [2, 3], [4]]


def test_a_change_of_the_wrong_mask_is_found_by_the_digest() -> None:
    masks = new_volume()
    first, second, *rest = sent()
    masks.add(first)
    masks.add(Empty(1, (1000,), (9,)))  # not what the board sent
    for message in rest:
        masks.add(message)
    with pytest.raises(DigestMismatch, match="digest differs"):
        masks.finish(end_of())
    assert isinstance(second, Mask)


def test_unexpected_empty_masks_change_nothing() -> None:
    masks = new_volume()
    masks.add(sent()[0])
    masks.add_failure(Error(ErrorCode.ENGINE, 2, "the network failed"))
    for wrong, what in (
        (Empty(0, (1,), (1,)), "slice 0 twice"),
        (Empty(1, (1, 1), (1, 1)), "slice 2 twice"),
        (Empty(3, (1, 1, 1), (1, 1, 1)), "slice 5 of 5"),
    ):
        with pytest.raises(MessageError, match=what):
            masks.add(wrong)
    assert masks.received.tolist() == [True, False, False, False, False]
    assert masks.quality.tolist() == [0] + [UNKNOWN] * 4
