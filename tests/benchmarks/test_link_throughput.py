"""Figures of a recording that a test scripts, and of a real run over a simulated link."""

import csv
from pathlib import Path

import pytest

from benchmarks import link_throughput
from benchmarks.link_throughput import (
    LinkFigures,
    check_goals,
    departures,
    measure_recording,
    measure_run,
    write_figures,
    write_pages,
)
from glioslice.cases import find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.wire import packets
from glioslice.wire.capture import Kind, Recording
from glioslice.wire.framing import encode_frame
from glioslice.wire.layout import varint
from glioslice.wire.messages import Empty, End, HostHello, Mask, Message, Mode, Slice, Start
from glioslice.wire.packets import Ack, Data, Open
from glioslice.wire.simulator.port import WRITE_BUFFER
from tests.conftest import Write

BAUD = 100_000
"""10,000 bytes per second."""

SIZE = 1000


class ScriptedLink:
    """Records a session that a test scripts; `now` is the time of the next frame."""

    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self.recording = Recording(path, lambda: self.now)
        self._at = {True: 0, False: 0}
        self.frame(True, Open(1, 0, 1024, 32768))
        self.frame(False, Open(2, 1, 1024, 32768))

    def frame(self, up: bool, packet: packets.Packet) -> int:
        data = encode_frame(packets.to_bytes(packet, up))
        self.recording.add(Kind.UP if up else Kind.DOWN, data)
        return len(data)

    def send(self, up: bool, message: Message) -> tuple[int, int]:
        """Send a message in a frame of its own; return the bytes of both."""
        data = message.to_bytes()
        stream = varint(len(data)) + data
        size = self.frame(up, Data(3, self._at[up], 0, stream))
        self._at[up] += len(stream)
        return size, len(stream)


def test_a_served_run(tmp_path: Path) -> None:
    link = ScriptedLink(tmp_path / "a.rec")
    link.send(True, HostHello(Mode.SERVE, 2, 1))
    link.now = 1.0  # all is handed to the port at once, and leaves as the line allows
    start, _ = link.send(True, Start(3))
    sent = [link.send(True, Slice(index, 2, bytes(SIZE))) for index in range(3)]
    again = link.frame(True, Data(3, link._at[True] - 10, 0, bytes(10)))
    left = [1.0 + (start + sum(size for size, _ in sent[: n + 1])) / 1e4 for n in range(3)]
    link.now = left[0] + 0.030
    down = [link.send(False, Mask(0, 1, 5, bytes(40)))]
    link.now = left[2] + 0.050
    down.append(link.send(False, Empty(1, (5, 5), (255, 255))))
    ack = link.frame(False, Ack(3, 0, 9))
    link.now = 1.0 + start / 1e4 + 0.5
    down.append(link.send(False, End(3, 0, 15, "00" * 32)))
    link.recording.close()
    found = measure_recording(tmp_path / "a.rec", "default", BAUD)
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


def test_a_played_run(tmp_path: Path) -> None:
    link = ScriptedLink(tmp_path / "a.rec")
    hello, _ = link.send(True, HostHello(Mode.PLAY, 0, 1))
    link.now = hello / 1e4 + 0.1
    link.send(False, Start(2))
    link.send(False, Mask(0, 1, 5, bytes(40)))
    link.send(False, Mask(1, 1, 5, bytes(40)))
    link.now = hello / 1e4 + hello / 1e4 + 0.2
    link.send(False, End(2, 0, 15, "00" * 32))
    link.recording.close()
    found = measure_recording(tmp_path / "a.rec", "play", BAUD)
    assert (found.slices, found.busier, found.wait_ms_median) == (2, "down", None)
    assert 9.0 < found.slices_per_second < 10.5


@pytest.mark.parametrize("slower", [1.0, 0.98])
def test_bytes_leave_at_the_pace_of_the_link(slower: float) -> None:
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
    link = ScriptedLink(tmp_path / "a.rec")
    link.send(True, Start(2))
    link.recording.close()
    with pytest.raises(GliosliceError, match="no complete run"):
        measure_recording(tmp_path / "a.rec", "play", BAUD)


def link_figures(way: str, baud: int, rate: float, payload: float = 0.96) -> LinkFigures:
    return LinkFigures(
        way, baud, 155, 155 / rate, rate, "up", payload + 0.02, payload,
        None if way == "play" else 20.0, None if way == "play" else 30.5, 0.02, 0, 9, 8, "some",
    )  # fmt: skip


def test_pages_hold_what_the_file_holds(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    marks = "before\n<!-- figures: line -->\nold\n<!-- end of line -->\nafter\n"
    for name in ("docs/wire.md", "README.md"):
        (tmp_path / name).write_text(marks)
    found = [
        link_figures(way, baud, baud / 10_000)
        for baud in link_throughput.BAUDS
        for way in link_throughput.WAYS
    ]
    write_figures(tmp_path / "rates.csv", found)
    with (tmp_path / "rates.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 9
    write_pages(tmp_path / "rates.csv", tmp_path)
    readme = (tmp_path / "README.md").read_text()
    assert "| 921,600 | 92.2 | 92.2 | 92.2 |" in readme
    assert "old" not in readme
    page = (tmp_path / "docs" / "wire.md").read_text()
    assert "A volume of 155 slices, board and host on one machine (some)." in page
    assert "| 115,200 | lossless | 11.5 | 98.0% | 96.0% | 20.0 | 30.5 | 2.0% | 0 |" in page
    assert "| 115,200 | play | 11.5 | 98.0% | 96.0% |  |  | 2.0% | 0 |" in page


def test_goals_are_reached_or_missed() -> None:
    found = [
        link_figures("default", 115200, 2.9),
        link_figures("default", 921600, 25.0),
        link_figures("play", 115200, 95),
    ]
    found += [
        link_figures("lossless", 115200, 0.3, 0.94),
        link_figures("lossless", 921600, 3, 0.95),
    ]
    assert [text.rpartition(" ")[2] for text in check_goals(found)] == [
        "MISSED", "reached", "reached", "MISSED", "reached",
    ]  # fmt: skip


@pytest.mark.serial
@pytest.mark.slow
@pytest.mark.parametrize("way", link_throughput.WAYS)
def test_a_run_is_measured(way: str, write_case: Write) -> None:
    found = measure_run(way, 921600, write_case())
    assert (found.way, found.baud, found.slices) == (way, 921600, 14)
    assert found.seconds == pytest.approx(14 / found.slices_per_second, abs=0.001)  # as rounded
    assert 0 < found.payload < found.line_used <= 1
    assert found.overhead > 0.018  # a full frame's


@pytest.mark.slow
def test_the_phantom_is_a_case_that_can_be_played(tmp_path: Path) -> None:
    folder = link_throughput.write_played_case(tmp_path)
    (files,) = find_cases(tmp_path)
    assert folder == tmp_path / files.name
    assert read_case(files).images.any()
