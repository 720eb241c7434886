"""The messages of a run for the browser's tabs, kept so that a late or reloaded tab gets them all.

case    {"kind": "case", ...}                       text, once the run is known
slice   u32 index, f32 milliseconds, labels         binary, in the order of arrival
numbers {"kind": "numbers", ...}                    text, the latest only
"""

import json
import math
import struct
import threading
from collections.abc import Iterator, Mapping
from typing import Any

SLICE = struct.Struct("<If")

IDLE = 1.0
"""Seconds without a message after which a follower may check whether its tab still exists."""

Position = tuple[str | None, int, str | None]
"""What a follower has had: the case, the number of its slices, the numbers."""


class Feed:
    """The messages of one run. Any thread may call its methods."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._case: str | None = None
        self._numbers: str | None = None
        self._slices: list[bytes] = []
        self._rounds = 0
        self._closed = False

    def start_case(self, case: Mapping[str, Any]) -> None:
        """Publish the case; once more if its slices start again from the first."""
        with self._changed:
            self._rounds += 1
            self._case = json.dumps({"kind": "case", **case, "round": self._rounds})
            self._slices = []
            self._changed.notify_all()

    def add(self, index: int, milliseconds: float | None, labels: bytes) -> None:
        """Publish a slice's labels, as the page's voxels; its time is NaN if unknown."""
        time = math.nan if milliseconds is None else milliseconds
        with self._changed:
            self._slices.append(SLICE.pack(index, time) + labels)
            self._changed.notify_all()

    def publish_numbers(self, numbers: Mapping[str, Any]) -> None:
        """Publish the latest numbers, if they have changed."""
        text = json.dumps({"kind": "numbers", **numbers})
        with self._changed:
            if text != self._numbers:
                self._numbers = text
                self._changed.notify_all()

    def close(self) -> None:
        """Let every follower end once it has all messages."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def follow(self) -> Iterator[str | bytes | None]:
        """Yield all messages so far and then new ones; None after a second without any."""
        seen: Position = (None, 0, None)
        while True:
            with self._changed:
                if self._position == seen and not self._closed:
                    self._changed.wait(IDLE)
                case, done, numbers = seen
                seen = self._position
                closed = self._closed
                fresh: list[str | bytes | None] = []
                if seen[0] is not None:
                    fresh += [seen[0]] if seen[0] != case else []
                    fresh += self._slices[done if seen[0] == case else 0 :]
                fresh += [seen[2]] if seen[2] != numbers else []
            yield from fresh or [None]
            if closed:
                return

    @property
    def _position(self) -> Position:
        return self._case, len(self._slices), self._numbers
