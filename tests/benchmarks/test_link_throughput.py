"""What a recording says of a line, by hand, and of a real run over a simulated one."""

import csv
from pathlib import Path

import pytest

from benchmarks import link_throughput
from benchmarks.link_throughput import (
    Figures,
    departures,
    figures,
    streamed,
    text_of,
    verdicts,
    write_pages,
)
from glioslice.cases import find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.wire import packets
from glioslice.wire.capture import Kind, Recording
from glioslice.wire.framing import encode
from glioslice.wire.layout import varint
from glioslice.wire.messages import Empty, End, HostHello, Mask, Message, Mode, Slice, Start
from glioslice.wire.packets import Ack, Data, Open
from glioslice.wire.simulator.port import WRITE_BUFFER
from tests.conftest import Write

BAUD = 100_000
"""10,000 bytes a second."""

SIZE = 1000


class Line:
    """Writes a session by hand; `now` is the time of what comes next."""

    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self.keep = Recording(path, lambda: self.now)
        self._at = {True: 0, False: 0}
        self.frame(True, Open(1, 0, 1024, 32768))
        self.frame(False, Open(2, 1, 1024, 32768))

    def frame(self, up: bool, packet: packets.Packet) -> int:
        data = encode(packets.to_bytes(packet, up))
        self.keep.add(Kind.UP if up else Kind.DOWN, data)
        return len(data)

    def say(self, up: bool, message: Message) -> tuple[int, int]:
        """Send a message in a frame of its own; return the bytes of both."""
        data = message.to_bytes()
        stream = varint(len(data)) + data
        size = self.frame(up, Data(3, self._at[up], 0, stream))
        self._at[up] += len(stream)
        return size, len(stream)


def test_a_served_run_by_hand(tmp_path: Path) -> None:
    made = Line(tmp_path / "a.rec")
    made.say(True, HostHello(Mode.SERVE, 2, 1))
    made.now = 1.0  # all is handed to the port at once, and leaves as the line allows
    start, _ = made.say(True, Start(3))
    sent = [made.say(True, Slice(index, 2, bytes(SIZE))) for index in range(3)]
    again = made.frame(True, Data(3, made._at[True] - 10, 0, bytes(10)))
    left = [1.0 + (start + sum(size for size, _ in sent[: n + 1])) / 1e4 for n in range(3)]
    made.now = left[0] + 0.030
    down = [made.say(False, Mask(0, 1, 5, bytes(40)))]
    made.now = left[2] + 0.050
    down.append(made.say(False, Empty(1, (5, 5), (255, 255))))
    ack = made.frame(False, Ack(3, 0, 9))
    made.now = 1.0 + start / 1e4 + 0.5
    down.append(made.say(False, End(3, 0, 15, "00" * 32)))
    made.keep.close()
    found = figures(tmp_path / "a.rec", "default", BAUD)
    up = start + sum(size for size, _ in sent) + again
    assert (found.slices, found.seconds, found.slices_per_second) == (3, 0.5, 6.0)
    assert (found.busier, found.bytes_up) == ("up", up)
    assert found.bytes_down == sum(size for size, _ in down) + ack
    assert found.line_used == pytest.approx(up / 5000, abs=1e-4)
    assert found.repeated_bytes == 10
    stream = 15 + sum(size for _, size in sent)
    assert found.payload == pytest.approx(stream / 5000, abs=1e-4)
    payload = stream + sum(size for _, size in down)
    crossed = up + found.bytes_down
    assert found.overhead == pytest.approx((crossed - payload - 10) / payload, abs=1e-4)
    waits = sorted([30.0, (left[2] - left[1]) * 1000 + 50, 50.0])
    assert found.wait_ms_median == pytest.approx(waits[1], abs=0.1)


def test_a_played_run_by_hand(tmp_path: Path) -> None:
    made = Line(tmp_path / "a.rec")
    hello, _ = made.say(True, HostHello(Mode.PLAY, 0, 1))
    made.now = hello / 1e4 + 0.1
    made.say(False, Start(2))
    made.say(False, Mask(0, 1, 5, bytes(40)))
    made.say(False, Mask(1, 1, 5, bytes(40)))
    made.now = hello / 1e4 + hello / 1e4 + 0.2
    made.say(False, End(2, 0, 15, "00" * 32))
    made.keep.close()
    found = figures(tmp_path / "a.rec", "play", BAUD)
    assert (found.slices, found.busier, found.wait_ms_median) == (2, "down", None)
    assert 9.0 < found.slices_per_second < 10.5


@pytest.mark.parametrize("slower", [1.0, 0.98])
def test_bytes_leave_when_the_line_lets_them(slower: float) -> None:
    """A writer that waits at a full buffer, then one that is slower than the line."""
    rate, buffer, size = 10_000.0, WRITE_BUFFER, 500
    real = rate * slower  # a busy machine's line is a little late
    writes: list[tuple[float, int]] = []
    wanted: list[float] = []
    now = free = 0.0
    for number in range(400):
        if number >= 300:
            now = free + 0.01  # the line was idle
        writes.append((now, size))
        now = max(now, free - buffer / real)  # until then the buffer is full
        free = max(free, now) + size / real
        wanted.append(free)
    found = list(departures(writes, rate))
    assert found[:300] == pytest.approx(wanted[:300], abs=0.06)
    assert found[301:] == pytest.approx(wanted[301:], abs=0.002)


def test_a_recording_without_an_end_has_no_figures(tmp_path: Path) -> None:
    made = Line(tmp_path / "a.rec")
    made.say(True, Start(2))
    made.keep.close()
    with pytest.raises(GliosliceError, match="without a whole run"):
        figures(tmp_path / "a.rec", "play", BAUD)


def some(way: str, baud: int, rate: float, payload: float = 0.96) -> Figures:
    return Figures(
        way, baud, 155, 155 / rate, rate, "up", payload + 0.02, payload,
        None if way == "play" else 20.0, None if way == "play" else 30.5, 0.02, 0, 9, 8, "some",
    )  # fmt: skip


def test_pages_hold_what_the_file_holds(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    marks = "before\n<!-- figures: line -->\nold\n<!-- end of line -->\nafter\n"
    for name in ("docs/wire.md", "README.md"):
        (tmp_path / name).write_text(marks)
    found = [
        some(way, baud, baud / 10_000)
        for baud in link_throughput.BAUDS
        for way in link_throughput.WAYS
    ]
    (tmp_path / "rates.csv").write_text(text_of(found))
    with (tmp_path / "rates.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 9
    write_pages(tmp_path / "rates.csv", tmp_path)
    readme = (tmp_path / "README.md").read_text()
    assert "| 921,600 | 92.2 | 92.2 | 92.2 |" in readme
    assert "old" not in readme
    page = (tmp_path / "docs" / "wire.md").read_text()
    assert "A volume of 155 slices, board and desk on one machine (some)." in page
    assert "| 115,200 | lossless | 11.5 | 98.0% | 96.0% | 20.0 | 30.5 | 2.0% | 0 |" in page
    assert "| 115,200 | play | 11.5 | 98.0% | 96.0% |  |  | 2.0% | 0 |" in page


def test_every_aim_is_judged() -> None:
    found = [some("default", 115200, 2.9), some("default", 921600, 25.0), some("play", 115200, 95)]
    found += [some("lossless", 115200, 0.3, 0.94), some("lossless", 921600, 3, 0.95)]
    assert [text.rpartition(" ")[2] for text in verdicts(found)] == [
        "MISSED", "reached", "reached", "MISSED", "reached",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("way", link_throughput.WAYS)
def test_a_run_is_measured(way: str, write_case: Write) -> None:
    found = streamed(way, 921600, write_case())
    assert (found.way, found.baud, found.slices) == (way, 921600, 14)
    assert found.seconds == pytest.approx(14 / found.slices_per_second, abs=0.001)  # as rounded
    assert 0 < found.payload < found.line_used <= 1
    assert found.overhead > 0.018  # a full frame's


@pytest.mark.slow
def test_the_phantom_is_a_case_that_can_be_played(tmp_path: Path) -> None:
    folder = link_throughput.written_phantom(tmp_path)
    (files,) = find_cases(tmp_path)
    assert folder == tmp_path / files.name
    assert read_case(files).images.any()
