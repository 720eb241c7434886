"""What a volume's masks take on the line, as a playing board sends them, in virtual time."""

from collections.abc import Sequence
from functools import partial

from device.answers import Answer
from device.outbox import Outbox
from glioslice.wire import frames, packets
from glioslice.wire.lane import Quality
from glioslice.wire.link import Link
from glioslice.wire.messages import Empty, Mask
from glioslice.wire.packets import Data
from glioslice.wire.transport import BAUD
from glioslice.wire.varint import varint
from glioslice.wire.virtual import VirtualLine

CHANGE = 3
MICROSECONDS, QUALITY = 20_000, 200
"""What is said of every mask: times up to 2 s take as many bytes, from 16 ms on."""

HOST, BOARD = 0x11223344, 0x55667788
PATIENCE = 60.0


def framed(content: bytes) -> int:
    """Return the bytes on the line of a mask that leaves in a frame of its own."""
    message = Mask(1, CHANGE, MICROSECONDS, content, QUALITY).to_bytes()
    stream = varint(len(message)) + message
    return len(frames.encode(packets.to_bytes(Data(0x44CC, 1, 1, stream), active=False)))


def answers_of(contents: Sequence[bytes]) -> list[Answer]:
    """Return a run's answers whose masks have these contents, none for an empty one."""
    return [
        Mask(index, CHANGE, MICROSECONDS, content, QUALITY)
        if content
        else Empty(index, (MICROSECONDS,), (QUALITY,))
        for index, content in enumerate(contents)
    ]


def played(contents: Sequence[bytes], seconds: float) -> int:
    """Return the bytes that a board writes for a run's masks at 115200 baud.

    It makes a mask every so many `seconds`, 0: at once.
    """
    board = Link(active=False, session=BOARD)
    line = VirtualLine(Link(active=True, session=HOST), board, Quality(BAUD))
    outbox = Outbox(board.sender)
    board.sender.send(b"\0")  # something to wait for: both ends are open when it has arrived
    acknowledged = partial(lambda: not board.sender.queued)
    line.run(acknowledged, PATIENCE)
    before = board.counts.bytes_sent
    for answer in answers_of(contents):
        outbox.send(answer)
        line.run(lambda: False, seconds)
    line.run(acknowledged, PATIENCE)
    return board.counts.bytes_sent - before
