"""A recording replays the messages that the board sent in it."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glioslice.errors import GliosliceError
from glioslice.wire import packets
from glioslice.wire.capture import Kind, Recording, records
from glioslice.wire.connection import Connection, PeerRestarted
from glioslice.wire.dump import format_recording
from glioslice.wire.framing import encode_frame
from glioslice.wire.layout import varint
from glioslice.wire.messages import (
    BoardHello,
    End,
    Error,
    ErrorCode,
    HostHello,
    Mask,
    Message,
    Mode,
    Start,
    parse,
)
from glioslice.wire.packets import Data, Open
from glioslice.wire.replay import Replay, read_script

HELLO = BoardHello(
    modes=frozenset({Mode.SERVE}), window=(8, 8), scale=0.0390625, zero_point=0, clip=1.0,
    image_codecs=7, mask_codecs=7, sha256="ab" * 32, model="some",
)  # fmt: skip
CHOICE = HostHello(Mode.SERVE, 2, 1)
MASKS: list[Message] = [Mask(i, 1, 5, b"mask %d" % i) for i in range(4)]
END = End(4, 0, 20, "00" * 32)
CUT = Error(ErrorCode.STOPPED, -1, "the recording ends here")
STOPPED = Error(ErrorCode.STOPPED, -1, "the board is stopping")


class Session:
    """Writes a session into a recording, frame by frame."""

    def __init__(self, keep: Recording, board: int, host: int = 0x1001) -> None:
        self._keep, self._tag, self._at = keep, host ^ board, {True: 0, False: 0}
        self.frame(True, Open(host, 0, 1024, 32768))
        self.frame(False, Open(board, host, 1024, 32768))

    def frame(self, up: bool, packet: packets.Packet) -> None:
        frame = encode_frame(packets.to_bytes(packet, up))
        self._keep.add(Kind.UP if up else Kind.DOWN, frame)

    def send(self, up: bool, *messages: Message) -> "Session":
        for message in messages:
            data = message.to_bytes()
            stream = varint(len(data)) + data
            self.frame(up, Data(self._tag, self._at[up], 0, stream))
            self._at[up] += len(stream)
        return self


def receive_all(host: Connection, count: int) -> list[Message]:
    """So many messages, and those that come in the moment after them."""
    received: list[Message] = []
    while (message := host.receive(60.0 if len(received) < count else 0.3)) is not None:
        received.append(parse(message))
    return received


@pytest.fixture
def clock() -> Callable[[], float]:
    """Ten ticks a second."""
    ticks = iter(range(10**6))
    return lambda: next(ticks) / 10


def test_the_board_repeats_its_messages_whatever_the_host_sends(
    tmp_path: Path, clock: Callable[[], float]
) -> None:
    keep = Recording(tmp_path / "a.rec", lambda: 100 * clock())
    session = Session(keep, 0x2002).send(False, HELLO).send(True, CHOICE, Start(4))
    session.send(False, *MASKS, END)
    keep.close()
    replay = Replay(tmp_path / "a.rec", at_once=True)
    assert replay.script.choice == CHOICE
    before = threading.active_count()
    with Connection(replay, active=True) as host:
        began = time.monotonic()
        host.open(60.0)
        for _ in range(50):
            host.send(b"anything" * 1000)
        assert receive_all(host, 6) == [HELLO, *MASKS, END]
        assert time.monotonic() - began < 30.0
    assert threading.active_count() < before


@pytest.mark.slow
@pytest.mark.serial
def test_the_pace_is_that_of_the_recording(tmp_path: Path, clock: Callable[[], float]) -> None:
    keep = Recording(tmp_path / "a.rec", clock)  # a message each 0.1 s, two of them the host's
    Session(keep, 0x2002).send(False, HELLO).send(True, CHOICE, Start(4)).send(False, *MASKS, END)
    keep.close()
    for _ in range(5):  # a busy machine may be late, but not each time
        times = [time.monotonic()]
        with Connection(Replay(tmp_path / "a.rec"), active=True) as host:
            host.open(60.0)
            for _ in range(6):
                assert host.receive(60.0)
                times.append(time.monotonic())
        assert all(at - times[0] >= 0.29 + 0.1 * n for n, at in enumerate(times[2:]))
        _, *gaps = [later - earlier for earlier, later in pairwise(times)]
        if on_time := gaps == pytest.approx([0.3, 0.1, 0.1, 0.1, 0.1], abs=0.08):
            break
    assert on_time, gaps


def test_closing_does_not_wait_for_the_pace(tmp_path: Path) -> None:
    ticks = iter([0.0, 1.0, 1.0, 2.0, 2.0, 3000.0, 3000.0])
    keep = Recording(tmp_path / "a.rec", lambda: next(ticks))
    Session(keep, 0x2002).send(False, HELLO).send(True, CHOICE).send(False, END)
    keep.close()
    with Connection(Replay(tmp_path / "a.rec"), active=True) as host:
        host.open(60.0)
        assert host.receive(60.0)
        began = time.monotonic()
    assert time.monotonic() - began < 30.0


@pytest.mark.slow
def test_a_board_that_restarted_restarts_again(tmp_path: Path) -> None:
    keep = Recording(tmp_path / "a.rec")
    Session(keep, 0x2002).send(False, HELLO).send(True, CHOICE, Start(4)).send(False, *MASKS[:2])
    Session(keep, 0x3003)  # began, sent nothing
    later = Session(keep, 0x4004, 0x5005).send(False, HELLO).send(True, CHOICE, Start(4, first=2))
    later.send(False, *MASKS[2:], END)
    keep.close()
    with Connection(Replay(tmp_path / "a.rec", at_once=True), active=True) as host:
        host.open(60.0)
        received = []
        with pytest.raises(PeerRestarted):
            while (message := host.receive(60.0)) is not None:
                received.append(parse(message))
        assert received == [HELLO, *MASKS[:2]]
        host.open(60.0)
        assert receive_all(host, 4) == [HELLO, *MASKS[2:], END]


@pytest.mark.parametrize(
    ("last", "more"),
    [([], [CUT]), ([Error(ErrorCode.ENGINE, 2, "failed")], [CUT]), ([STOPPED], [])],
)
def test_a_session_that_failed_ends_where_it_ended(
    last: list[Message], more: list[Message], tmp_path: Path
) -> None:
    keep = Recording(tmp_path / "a.rec")
    session = Session(keep, 0x2002).send(False, HELLO).send(True, CHOICE)
    session.send(False, *MASKS[:2], *last)
    keep.close()
    with Connection(Replay(tmp_path / "a.rec", at_once=True), active=True) as host:
        host.open(60.0)
        wanted = [HELLO, *MASKS[:2], *last, *more]
        assert receive_all(host, len(wanted)) == wanted


def test_a_recording_without_a_run_is_refused(tmp_path: Path) -> None:
    keep = Recording(tmp_path / "a.rec")
    Session(keep, 0x2002).send(False, HELLO)
    keep.close()
    with pytest.raises(GliosliceError, match=r"nothing to replay; `glioslice dump"):
        Replay(tmp_path / "a.rec")


def test_the_first_choice_that_was_not_refused_counts_and_the_first_volume(tmp_path: Path) -> None:
    keep = Recording(tmp_path / "a.rec")
    refused = Error(ErrorCode.REFUSED, -1, "not offered")
    other = HostHello(Mode.PLAY, 0, 1)
    Session(keep, 0x2002).send(False, HELLO).send(True, other).send(False, refused).send(
        True, CHOICE
    )
    keep.close()
    assert read_script(tmp_path / "a.rec").choice == CHOICE
    assert read_script(tmp_path / "a.rec").volume is None


def frames_of(parts: list[tuple[bool, int, bytes]]) -> list[tuple[Kind, bytes]]:
    """Frames of an open session whose streams hold anything."""
    sent: list[tuple[bool, packets.Packet]] = [
        (True, Open(1, 0, 1024, 32768)),
        (False, Open(2, 1, 1024, 32768)),
        *((up, Data(3, offset, 0, payload)) for up, offset, payload in parts),
    ]
    return [
        (Kind.UP if up else Kind.DOWN, encode_frame(packets.to_bytes(packet, up)))
        for up, packet in sent
    ]


pieces = st.tuples(st.booleans(), st.integers(0, 300), st.binary(min_size=1, max_size=100))
kinds = st.sampled_from([kind for kind in Kind if kind is not Kind.END])
extra = st.tuples(kinds, st.binary(max_size=150))


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(pieces, max_size=8), st.lists(extra, max_size=3))
def test_any_recording_raises_nothing_but_our_errors(
    tmp_path: Path, parts: list[tuple[bool, int, bytes]], more: list[tuple[Kind, bytes]]
) -> None:
    keep = Recording(tmp_path / "a.rec")
    for kind, data in [*frames_of(parts), *more]:
        keep.add(kind, data)
    keep.close()
    with suppress(GliosliceError):
        list(format_recording(records(tmp_path / "a.rec")))
    with suppress(GliosliceError):
        script = read_script(tmp_path / "a.rec")
        assert script.choice and [session.complete for session in script.sessions]
