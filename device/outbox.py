"""Answers on their way out: empty masks share a message while those before are on theirs.

A line that is slower than the board carries fewer bytes that way. One that is idle carries each at
once, and so it is before the board waits for a slice.
"""

from typing import Protocol

from device.answers import Answer
from glioslice.wire.messages import Empty


class Line(Protocol):
    """What the outbox needs of a connection, or of a link's sender."""

    def send(self, message: bytes) -> None:
        """Queue a message, after the deferred one."""

    def send_deferred(self, message: bytes) -> None:
        """Queue a message that leaves once all before it is acknowledged, or before the next."""

    def withdraw(self) -> bytes | None:
        """Return the deferred message, which is then not sent; None if it has been sent."""


class Outbox:
    """Gives the answers of a session to its line."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._last: Empty | None = None

    def send(self, answer: Answer) -> None:
        """Send an answer; an empty mask joins those before it that have not left."""
        if not isinstance(answer, Empty):
            self._line.send(answer.to_bytes())
            return
        joined = self._last.plus(answer) if self._last else None
        if joined is not None and self._line.withdraw() is not None:
            answer = joined
        self._last = answer
        self._line.send_deferred(answer.to_bytes())
