"""A port that is recorded, with images and without."""

import os
import random
import threading
import zlib
from pathlib import Path

import pytest

from glioslice.wire import packets
from glioslice.wire.capture import Kind, RecordedPort, Recording, Redactor, records
from glioslice.wire.connection import Connection
from glioslice.wire.framing import encode_frame
from glioslice.wire.layout import varint
from glioslice.wire.link import Link
from glioslice.wire.messages import HostHello, Mask, Mode, Slice, Start, VolumeGeometry
from glioslice.wire.packets import Data, Open
from glioslice.wire.simulator.line import LineQuality
from glioslice.wire.simulator.virtual_link import VirtualLine
from glioslice.wire.sniffer import Sniffer
from glioslice.wire.transport import AdjustablePort, LineLost, PortError, pair

VOLUME = VolumeGeometry(
    (9, 8, 7), (-1, 2), (1, 5), (1.0, 1.0, 1.0), tuple(map(float, range(12))), 2, (1, 1)
)
SLICES = [os.urandom(size) for size in (3000, 1, 0, 64, 40_000)]
CHOICE = HostHello(Mode.SERVE, 2, 1)


def messages_in(path: Path) -> tuple[list[bytes], list[bytes]]:
    """The messages of both ends in a recording, the host's first."""
    sniffer, up, down = Sniffer(), list[bytes](), list[bytes]()
    for record in records(path):
        if record.kind in (Kind.UP, Kind.DOWN):
            for frame in sniffer.feed(record.kind is Kind.UP, record.data, record.time):
                (up if frame.up else down).extend(frame.messages)
    return up, down


def stream(port: RecordedPort, far: Connection) -> list[bytes]:
    """Stream slices over a recorded port; return what the host sent."""
    sent = [CHOICE.to_bytes(), Start(len(SLICES)).to_bytes()]
    sent += [Slice(i, 2, one).to_bytes() for i, one in enumerate(SLICES)]
    with Connection(port, active=True) as host:
        host.open(60.0)
        far.open(60.0)
        for message in sent:
            host.send(message)
        for index in range(len(SLICES)):
            far.send(Mask(index, 1, 5, b"mask %d" % index).to_bytes())
            assert host.receive(60.0)
        assert host.flush(60.0)
        port.record_volume(VOLUME)
    return sent


@pytest.mark.parametrize("images", [True, False])
def test_a_recording_holds_every_message_of_both_ends(images: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    near, far = pair()
    port = RecordedPort(near, Recording(path), None if images else Redactor())
    with Connection(far, active=False) as board:
        sent = stream(port, board)
    assert not near._inbound.data
    up, down = messages_in(path)
    if not images:
        blank = [Slice(i, 2, bytes(len(one))).to_bytes() for i, one in enumerate(SLICES)]
        sent = [*sent[:2], *blank]
    assert up == sent
    assert [Mask.from_bytes(m).payload for m in down] == [b"mask %d" % i for i in range(5)]
    found = [r.data for r in records(path) if r.kind is Kind.VOLUME]
    assert [VolumeGeometry.from_bytes(data) for data in found] == [VOLUME]
    assert list(tmp_path.iterdir()) == [path]


def runs(data: bytes, size: int = 6) -> set[bytes]:
    """All runs of so many bytes."""
    return {data[place : place + size] for place in range(len(data) - size + 1)}


def unpacked(path: Path) -> bytes:
    """All that a recording holds, its zlib streams inflated."""
    return b"".join(record.data for record in records(path)) + path.read_bytes()


def test_no_byte_of_an_image_is_in_a_recording_of_masks(tmp_path: Path) -> None:
    """Over a line that loses and repeats frames, in pieces of every size, and echoes them."""
    chance = random.Random(2)
    path = tmp_path / "a.rec"
    keep, redactor = Recording(path), Redactor()

    def up(frame: bytes) -> bytes:
        keep_up(frame)
        if chance.random() < 0.2:
            keep_down(frame)  # an echo
        if chance.random() < 0.1:
            keep_down(frame[: chance.randrange(len(frame))])  # and a damaged one
        return b"" if chance.random() < 0.2 else frame

    def keep_up(data: bytes) -> None:
        for piece in redactor.up(data):
            keep.add(Kind.UP_REDACTED, zlib.compress(piece))

    def keep_down(data: bytes) -> None:
        for piece in redactor.down(data):
            keep.add(Kind.DOWN_REDACTED, zlib.compress(piece))

    def down(frame: bytes) -> bytes:
        keep_down(frame)
        return frame

    line = VirtualLine(
        Link(active=True, session=7), Link(active=False, session=9), LineQuality(921600),
        host_fault=up, board_fault=down,
    )  # fmt: skip
    images = [chance.randbytes(chance.randint(20, 9000)) for _ in range(30)]
    for index, image in enumerate(images):
        line.host.link.sender.send(Slice(index, 2, image).to_bytes())
        line.board.link.sender.send(Mask(index, 1, 5, b"a mask").to_bytes())
    done = lambda: len(line.board.received) == len(line.host.received) == 30  # noqa: E731
    assert line.run(done, 100.0)
    assert line.host.link.counts.retransmits > 10
    keep.add(Kind.DOWN_REDACTED, zlib.compress(redactor.rest()))
    keep.close()
    kept = unpacked(path)
    assert not runs(kept) & set[bytes]().union(*map(runs, images))
    assert kept.count(b"a mask") >= 30
    up_sent, down_sent = messages_in(path)
    assert [len(m) for m in up_sent] == [len(image) + 4 for image in images]
    assert len(down_sent) == 30


def test_a_host_stream_that_cannot_be_followed_is_left_out_entirely() -> None:
    redactor = Redactor()
    list(redactor.up(encode_frame(packets.to_bytes(Open(5, 0, 1024, 32768), True))))

    def kept(offset: int, payload: bytes) -> bytes:
        (frame,) = redactor.up(encode_frame(packets.to_bytes(Data(5, offset, 0, payload), True)))
        (sniffed,) = Sniffer().feed(None, frame, 0.0)
        assert isinstance(sniffed.packet, Data)
        return sniffed.packet.payload

    assert kept(50, b"before it was seen") == bytes(18)
    assert kept(0, b"\x03abc") == b"\x03abc"
    image = varint(9) + b"\x04\x02\x00\x00image"
    assert kept(4, image) == image[:5] + bytes(5)
    assert kept(9, b"image") == bytes(5)
    assert kept(14, b"\xff\xff\xff\xffno message") == b"\xff\xff" + bytes(12)
    assert kept(28, b"what follows") == bytes(12)


class Changing:
    """A port that can change its rate and be opened again."""

    name, rates = "changing", (115200, 921600)

    def __init__(self) -> None:
        self.there, self.rate, self.closed = True, 115200, 0

    def read(self, timeout: float) -> bytes:
        self.check()
        return b""

    def write(self, data: bytes) -> None:
        self.check()

    def check(self) -> None:
        if not self.there:
            raise LineLost("changing: lost")

    def set_rate(self, baud: int) -> None:
        self.rate = baud

    def reopen(self) -> None:
        if self.closed:
            raise PortError("changing: not there", "missing")
        self.there = True

    def close(self) -> None:
        self.closed += 1


def test_rates_and_a_line_that_is_lost_and_back(tmp_path: Path) -> None:
    path, inner = tmp_path / "a.rec", Changing()
    port = RecordedPort(inner, Recording(path))
    assert isinstance(port, AdjustablePort)
    assert (port.name, port.rates) == ("changing", inner.rates)
    port.set_rate(921600)
    assert inner.rate == 921600
    assert port.read(0.0) == b""
    inner.there = False
    for _ in range(3):
        with pytest.raises(LineLost):
            port.read(0.0)
    with pytest.raises(LineLost):
        port.write(b"x")
    port.reopen()
    port.write(b"y")
    port.close()
    port.close()
    rate = (921600).to_bytes(4, "little")
    assert [(r.kind, r.data) for r in records(path)] == [
        (Kind.RATE, rate), (Kind.LINE, b"\0"), (Kind.UP, b"x"), (Kind.LINE, b"\1"), (Kind.UP, b"y"),
    ]  # fmt: skip


def test_a_port_with_a_fixed_rate(tmp_path: Path) -> None:
    near, _ = pair()
    port = RecordedPort(near, Recording(tmp_path / "a.rec"))
    assert port.rates == ()
    port.set_rate(921600)
    with pytest.raises(PortError) as caught:
        port.reopen()
    assert caught.value.reason == "ended"
    port.close()
    assert [r.kind for r in records(tmp_path / "a.rec")] == []


def test_a_full_disk_is_logged_and_the_session_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep = Recording(tmp_path / "a.rec")
    keep.problem = "No space left on device"
    near, far = pair()
    with Connection(far, active=False) as board:
        stream(RecordedPort(near, keep), board)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "a.rec" in record.message and "No space left on device" in record.message


def test_both_threads_may_record(tmp_path: Path) -> None:
    keep = Recording(tmp_path / "a.rec")

    def add() -> None:
        for _ in range(500):
            keep.add(Kind.UP, b"x" * 100)

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keep.close()
    assert len(list(records(tmp_path / "a.rec"))) == 1500
