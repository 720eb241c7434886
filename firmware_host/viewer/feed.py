"""What every tab is told, kept whole, so that one that is reloaded or comes late hears all of it.

begin   {"kind": "case", ...}                       text, once the run is known
slice   u32 index, f32 milliseconds, labels         binary, in the order of arrival
numbers {"kind": "numbers", ...}                    text, always the latest
"""

import json
import math
import struct
import threading
from collections.abc import Iterator, Mapping
from typing import Any

SLICE = struct.Struct("<If")

IDLE = 1.0
"""Seconds after which a follower without news may look whether its tab is still there."""


class Feed:
    """The messages of one run. Any thread may call its methods."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._case: str | None = None
        self._numbers: str | None = None
        self._slices: list[bytes] = []
        self._rounds = 0
        self._closed = False

    def begin(self, case: Mapping[str, Any]) -> None:
        """Say what the run is about; again, if its slices come anew from the first."""
        with self._changed:
            self._rounds += 1
            self._case = json.dumps({"kind": "case", **case, "round": self._rounds})
            self._slices = []
            self._changed.notify_all()

    def add(self, index: int, milliseconds: float | None, labels: bytes) -> None:
        """Pass a slice's labels on, as the page's voxels; its time is NaN where it is not known."""
        time = math.nan if milliseconds is None else milliseconds
        with self._changed:
            self._slices.append(SLICE.pack(index, time) + labels)
            self._changed.notify_all()

    def say(self, numbers: Mapping[str, Any]) -> None:
        """Pass the latest numbers on, if they have changed."""
        text = json.dumps({"kind": "numbers", **numbers})
        with self._changed:
            if text != self._numbers:
                self._numbers = text
                self._changed.notify_all()

    def close(self) -> None:
        """Let every follower end once it has all."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def follow(self) -> Iterator[str | bytes | None]:
        """Yield all messages so far and then those that come; None after a second without any."""
        told: Told = (None, 0, None)
        while True:
            with self._changed:
                if self._now == told and not self._closed:
                    self._changed.wait(IDLE)
                case, done, numbers = told
                told = self._now
                closed = self._closed
                fresh: list[str | bytes | None] = []
                if told[0] is not None:
                    fresh += [told[0]] if told[0] != case else []
                    fresh += self._slices[done if told[0] == case else 0 :]
                fresh += [told[2]] if told[2] != numbers else []
            yield from fresh or [None]
            if closed:
                return

    @property
    def _now(self) -> "Told":
        """What a follower who has all has been told."""
        return self._case, len(self._slices), self._numbers


Told = tuple[str | None, int, str | None]
"""The case, how many slices of it, the numbers."""
