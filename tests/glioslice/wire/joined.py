"""Two ends joined: links in virtual time, over every line there is, and connections."""

import random
import threading
from dataclasses import dataclass, field
from typing import Any

from glioslice.wire.connection import Connection
from glioslice.wire.link import Link, Settings
from glioslice.wire.simulator.line import (
    FaultFactory,
    LineQuality,
    combined,
    console_text,
    dropping,
    duplicating,
    pausing,
    reordering,
    truncating,
)
from glioslice.wire.simulator.virtual_link import VirtualLine

everything = (dropping(0.1), duplicating, truncating, console_text)


@dataclass(frozen=True)
class Line:
    quality: LineQuality = field(default_factory=lambda: LineQuality(921600))
    faults: tuple[FaultFactory, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    """Of VirtualLine."""


LINES = {
    "perfect": Line(),
    "one byte at a time": Line(options={"bytewise": True}),
    "9600 baud": Line(LineQuality(9600)),
    "16 ms delay": Line(LineQuality(921600, latency=0.016)),
    "400 ms delay": Line(LineQuality(921600, latency=0.4)),
    "20 % of frames lost": Line(faults=(dropping(0.2),)),
    "60 % of frames lost": Line(faults=(dropping(0.6),)),
    "bit errors 1e-5": Line(LineQuality(921600, errors=1e-5)),
    "bit errors 1e-4": Line(LineQuality(921600, errors=1e-4)),
    "bit errors 1e-3": Line(LineQuality(921600, errors=1e-3)),
    "blocks lost": Line(LineQuality(921600, loss=0.01)),
    "duplication": Line(faults=(duplicating,)),
    "truncation": Line(faults=(truncating,)),
    "console text": Line(faults=(console_text,)),
    "reordering of whole writes": Line(faults=(reordering,)),
    "pauses": Line(faults=(pausing,)),
    "doubled and swapped": Line(faults=(duplicating, reordering)),
    "everything": Line(LineQuality(921600, errors=1e-5, loss=0.005, latency=0.016), everything),
}


def join(line: Line, seed: int = 1, link_settings: Settings | None = None) -> VirtualLine:
    host = Link(link_settings, active=True, session=0x1001)
    board = Link(link_settings, active=False, session=0x2002)
    options = dict(line.options)
    if line.faults:
        chance = random.Random(seed)
        for end in ("host_fault", "board_fault"):
            options[end] = combined(chance, line.faults)
    return VirtualLine(host, board, line.quality, **options)


def exchange(joined: VirtualLine, up: list[bytes], down: list[bytes], limit: float) -> None:
    """Send both lists at once and check that each arrives whole, in order, once."""
    host, board = joined.host, joined.board
    for message in up:
        host.link.sender.send(message)
    for message in down:
        board.link.sender.send(message)
    assert joined.run(
        lambda: (
            len(board.received) >= len(up)
            and len(host.received) >= len(down)
            and not host.link.sender.unacknowledged
            and not board.link.sender.unacknowledged
        ),
        limit,
    )
    assert board.received == up
    assert host.received == down


def open_both(host: Connection, board: Connection) -> None:
    """Open a session from both ends at once, as two programs do."""
    waiting = threading.Thread(target=board.open, args=(60.0,))
    waiting.start()
    host.open(60.0)
    waiting.join()
