"""Sessions: how they open, end and restart, and what a hostile peer can do to one."""

import contextlib
import logging
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glioslice.wire import packets
from glioslice.wire.framing import MAX_ENCODED, FrameReader, encode_frame
from glioslice.wire.link import MAX_MESSAGE, Link, LinkError, Settings, State
from glioslice.wire.packets import Ack, Close, Data, Open, Packet
from glioslice.wire.receiver import HOLD
from glioslice.wire.simulator.line import LineQuality
from glioslice.wire.simulator.virtual_link import VirtualLine
from glioslice.wire.transport import RATES
from tests.glioslice.wire.joined import LINES, Line, exchange, join


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.3, 4.0, 60.0])
def test_an_unplugged_line_goes_on_where_it_was(pause: float) -> None:
    now = [0.0]

    def cable(frame: bytes) -> bytes:
        return b"" if 1.0 < now[0] < 1.0 + pause else frame

    host, board = Link(active=True, session=1), Link(active=False, session=2)
    joined = VirtualLine(host, board, LineQuality(115200), host_fault=cable, board_fault=cable)
    messages = [bytes([i]) * 5000 for i in range(10)]
    for message in messages:
        host.sender.send(message)

    def done() -> bool:
        now[0] = joined.now
        return len(joined.board.received) == len(messages)

    assert joined.run(done, pause + 20.0)
    assert joined.board.received == messages
    assert joined.now < pause + 9.0
    assert host.state is board.state is State.OPEN


def test_an_idle_link_sends_a_keep_alive_each_second() -> None:
    joined = join(Line())
    joined.run(lambda: False, 100.0)
    for end in (joined.host, joined.board):
        assert joined.now - end.link.last_received < 1.1
        assert end.link.counts.frames_sent < 205


def test_a_passive_end_sends_nothing_before_an_open() -> None:
    board = Link(active=False)
    for second in range(100):
        assert board.outgoing(float(second)) == b""
        board.receive_bytes(b"console text\0more", float(second))
    assert board.next_time() == float("inf")


def test_a_restarted_board_is_recognised_and_the_next_session_works() -> None:
    joined = join(Line())
    exchange(joined, [b"before"], [b"old"], 5.0)
    joined.board.link = Link(active=False, session=0x3003)
    joined.host.link.sender.send(b"to the one who is gone")
    assert joined.run(lambda: joined.host.link.state is State.RESTARTED, 3.0)
    joined.host.link = Link(active=True, session=0x1002)
    joined.host.received, joined.board.received = [], []
    exchange(joined, [b"again"], [b"new"], 5.0)


def test_a_restarted_host_is_recognised_and_the_next_session_works() -> None:
    joined = join(LINES["20 % of frames lost"])
    exchange(joined, [bytes(30_000)], [b"old"], 5.0)
    joined.host.link = Link(active=True, session=0x1002)
    assert joined.run(lambda: joined.board.link.state is State.RESTARTED, 3.0)
    joined.board.link = Link(active=False, session=0x2003)
    joined.host.received, joined.board.received = [], []
    exchange(joined, [bytes(30_000)], [b"new"], 5.0)


def test_a_close_is_received() -> None:
    joined = join(LINES["20 % of frames lost"])
    exchange(joined, [b"x"], [], 5.0)
    joined.host.link.close()
    assert joined.run(lambda: joined.board.link.state is State.CLOSED, 1.0)
    assert joined.board.link.outgoing(joined.now + 10) == b""


@pytest.mark.parametrize("active", [True, False])
def test_the_echo_of_our_own_bytes_is_not_a_peer(active: bool) -> None:
    link = Link(active=active, session=7)
    for body in (Open(7, 0, 512, 32768), Data(0, 0, 0, b"x"), Ack(0, 0, 0), Close(0)):
        link.receive_bytes(encode_frame(packets.to_bytes(body, active)), 1.0)
    assert link.counts.echoes == 4
    assert link.state is State.OPENING
    assert link.last_received == float("-inf")


def test_a_session_goes_on_while_every_byte_is_echoed_too() -> None:
    host, board = Link(active=True, session=1), Link(active=False, session=2)
    host.sender.send(b"question")
    board.sender.send(b"answer")
    for step in range(8):
        out = host.outgoing(step * 0.05)
        host.receive_bytes(out, step * 0.05)
        board.receive_bytes(out, step * 0.05)
        back = board.outgoing(step * 0.05)
        board.receive_bytes(back, step * 0.05)
        host.receive_bytes(back, step * 0.05)
    assert (board.receiver.next_message(), host.receiver.next_message()) == (b"question", b"answer")
    assert (board.receiver.next_message(), host.receiver.next_message()) == (None, None)


def test_another_version_is_refused_by_name() -> None:
    other = b"\x01\x03" + bytes(12)
    host = Link(active=True)
    host.receive_bytes(encode_frame(other), 0.0)
    assert host.state is State.REFUSED
    assert "version 3 of the link, this side version 2" in host.refusal
    board = Link(active=False)
    board.receive_bytes(encode_frame(bytes([0x81]) + other[1:]), 0.0)
    assert board.state is State.OPENING
    assert board.outgoing(0.0)  # its own OPEN, so that the host can name both versions


def test_a_stream_that_holds_no_messages_is_refused() -> None:
    joined = join(Line())
    exchange(joined, [b"x"], [], 5.0)
    bad = Data((0x1001 ^ 0x2002) & 0xFFFF, 2, 0, b"\xff\xff\xff\xff")
    joined.board.link.receive_bytes(encode_frame(packets.to_bytes(bad, True)), joined.now)
    assert joined.board.link.state is State.REFUSED
    assert "announces a message" in joined.board.link.refusal


def test_packets_of_another_session_are_left_alone() -> None:
    joined = join(Line())
    exchange(joined, [b"x"], [], 5.0)
    for packet in (Data(1, 2, 0, b"\x01y"), Close(1), Ack(1, 0, 0)):
        joined.board.link.receive_bytes(encode_frame(packets.to_bytes(packet, True)), joined.now)
    assert joined.board.link.state is State.OPEN
    assert joined.board.link.receiver.next_message() is None
    assert joined.board.link.counts.foreign_packets == 3


@pytest.mark.parametrize(
    ("payload", "window"), [(63, 4096), (1025, 4096), (512, 511), (512, 65536)]
)
def test_sizes_that_packets_cannot_express_are_refused(payload: int, window: int) -> None:
    with pytest.raises(LinkError, match="not"):
        Settings(payload, window)


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=1100), max_size=8))
def test_arbitrary_bytes_never_raise(pieces: list[bytes]) -> None:
    for active in (True, False):
        link = Link(active=active, session=9)
        for now, piece in enumerate(pieces):
            link.receive_bytes(piece, float(now))
            if 1 <= len(piece) <= 1088:
                link.receive_bytes(encode_frame(piece), float(now))
            link.outgoing(float(now))
            assert link.buffered <= MAX_ENCODED + HOLD


kinds = st.sampled_from(["data", "ack", "close", "open"])


@settings(max_examples=100)
@given(st.lists(st.tuples(kinds, st.integers(0, 2**32)), max_size=60))
def test_a_hostile_peer_of_an_open_session_raises_nothing_and_fills_no_memory(
    actions: list[tuple[str, int]],
) -> None:
    link = Link(active=False, session=0x2002)
    tag = 0x1001 ^ 0x2002
    link.receive_bytes(encode_frame(packets.to_bytes(Open(0x1001, 0x2002, 512, 4096), True)), 0.0)
    link.sender.send(bytes(3000))
    for now, (kind, seed) in enumerate(actions):
        chance = random.Random(seed)
        number = chance.choice([chance.getrandbits(24), chance.getrandbits(12)])
        pairs = tuple((chance.getrandbits(12), chance.getrandbits(12)) for _ in range(seed % 33))
        choices: dict[str, Packet] = {
            "data": Data(tag, number, chance.getrandbits(12), chance.randbytes(1 + seed % 1024)),
            "ack": Ack(tag, chance.getrandbits(12), number, pairs),
            "close": Close(tag if seed % 20 == 0 else 0),
            "open": Open(0x1001, chance.choice([0, 0x2002]), 64 + seed % 961, 4096),
        }
        packet = choices[kind]
        with contextlib.suppress(LinkError):
            link.receive_bytes(encode_frame(packets.to_bytes(packet, True)), now * 0.1)
            link.outgoing(now * 0.1)
        assert link.buffered <= HOLD + MAX_MESSAGE + 2 * 32768


def test_three_closes_are_sent() -> None:
    joined = join(Line())
    exchange(joined, [b"x"], [], 5.0)
    joined.host.link.close()
    frames = [joined.host.link.outgoing(joined.now) for _ in range(5)]
    assert [bool(frame) for frame in frames] == [True, True, True, False, False]


def test_each_frame_is_a_debug_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="glioslice.wire.link")
    joined = join(LINES["20 % of frames lost"])
    exchange(joined, [bytes(20_000)], [b"reply"], 20.0)
    lines = [record.message for record in caplog.records if record.name == "glioslice.wire.link"]
    host, board = joined.host.link.counts, joined.board.link.counts
    sent = [line for line in lines if line.split()[1] == "sent"]
    own = [line for line in sent if line.startswith(f"{joined.host.link.session:08x} ")]
    assert len(own) == host.frames_sent
    assert len(sent) == host.frames_sent + board.frames_sent
    assert len(lines) == len(sent) + host.frames_received + board.frames_received
    repeated = [line for line in sent if "retransmitted" in line]
    assert len(repeated) == host.retransmits + board.retransmits > 0
    assert any("DATA offset 1024, 1024 bytes" in line for line in sent)


def test_no_frame_is_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    exchange(join(Line()), [bytes(3000)], [], 5.0)
    assert not [record for record in caplog.records if record.name == "glioslice.wire.link"]


@pytest.mark.parametrize("rates", [(), RATES])
@pytest.mark.parametrize("active", [True, False])
def test_an_open_crosses_links_that_alter_bytes(
    active: bool, rates: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.randbelow", random.Random(1).randrange)
    needed = {0x0A, 0xFF} if rates else {0x0A}  # a block of nine bytes, and that all rates do
    for _ in range(1000):
        link = Link(Settings(rates=rates), active=active)
        peer = Open(packets.random_session(), 0, 1024, 32768)
        if not active:
            link.receive_bytes(encode_frame(packets.to_bytes(peer, True)), 0.0)
        frame = link.outgoing(0.0)
        assert {*frame} & {*packets.ALTERED} <= needed
        [body] = FrameReader().feed(frame)
        sent, _ = packets.from_bytes(body)
        assert isinstance(sent, Open) and sent.session == link.session
        assert 24_000 < sent.window <= 32768
