"""The range coder decodes what it encoded, in about as many bits as the entropy."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glioslice.wire.layout import CodecError
from glioslice.wire.range_coder import PROBABILITY_BITS, RangeDecoder, RangeEncoder

WHOLE = 1 << PROBABILITY_BITS

decisions = st.tuples(st.just("bit"), st.integers(0, 1), st.integers(1, WHOLE - 1))
rare = st.tuples(st.just("bit"), st.integers(0, 1), st.sampled_from([1, WHOLE - 1]))
numbers = st.integers(1, 1 << 24).flatmap(
    lambda count: st.tuples(st.just("number"), st.integers(0, count - 1), st.just(count))
)


def coded(items: list[tuple[str, int, int]]) -> bytes:
    coder = RangeEncoder()
    for kind, value, what in items:
        if kind == "bit":
            coder.bits([value], [what])
        else:
            coder.number(value, what)
    return coder.finish()


@given(st.lists(decisions | rare | numbers, max_size=300))
def test_everything_comes_back(items: list[tuple[str, int, int]]) -> None:
    content = coded(items)
    assert not content.endswith(b"\0")
    coder = RangeDecoder(content)
    for kind, value, what in items:
        assert (coder.bit(what) if kind == "bit" else coder.number(what)) == value
    coder.finish()


def test_many_decisions_at_once_are_the_same_bytes() -> None:
    chance = random.Random(1)
    probabilities = [chance.randrange(1, WHOLE) for _ in range(2000)]
    bits = [int(chance.random() * WHOLE < c) for c in probabilities]
    coder = RangeEncoder()
    coder.bits(bits, probabilities)
    content = coder.finish()
    assert content == coded([("bit", *pair) for pair in zip(bits, probabilities, strict=True)])
    shares = (c if bit else WHOLE - c for bit, c in zip(bits, probabilities, strict=True))
    ideal = -sum(math.log2(share / WHOLE) for share in shares) / 8
    assert ideal - 1 < len(content) < ideal * 1.001 + 1


def test_a_carry_runs_through_all_bytes() -> None:
    """`low` stands at ff ff ff … and the last decision adds what makes them zeros."""
    items = [("bit", 1, 1), *[("bit", 0, WHOLE - 1)] * 2, *[("number", 255, 256)] * 12]
    items += [("bit", 0, WHOLE - 1)] * 4
    coder = RangeDecoder(coded(items))
    assert [coder.bit(w) if k == "bit" else coder.number(w) for k, _, w in items] == [
        value for _, value, _ in items
    ]


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(CodecError, match="only 3"):
        RangeDecoder(b"\xff\xff\xff\xff").number(3)


def test_bytes_behind_the_last_decision_are_refused() -> None:
    content = coded([("bit", 0, WHOLE - 9)] * 20)
    coder = RangeDecoder(content + b"\0\0\0\1")
    for _ in range(20):
        assert coder.bit(WHOLE - 9) == 0
    with pytest.raises(CodecError, match="follow"):
        coder.finish()


@pytest.mark.parametrize("bit", [0, 1])
def test_any_bytes_can_be_read(bit: int) -> None:
    coder = RangeDecoder(bytes([255 * bit]) * 50)
    for probability in (1, WHOLE - 1, WHOLE // 2) * 500:
        assert coder.bit(probability) in (0, 1)
