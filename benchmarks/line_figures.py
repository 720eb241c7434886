"""What the recording of a run over a simulated line says of it: rates, shares, waiting times."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.processor import processor
from glioslice.errors import GliosliceError
from glioslice.wire.lane import BITS_PER_BYTE
from glioslice.wire.messages import Empty, End, HostHello, Mask, Slice, Start, parse
from glioslice.wire.recording import Kind, records
from glioslice.wire.sim import WRITE_BUFFER
from glioslice.wire.tap import Seen, Tap, Totals

SLACK = 0.005
"""Seconds that a thread may be late."""


@dataclass(frozen=True)
class Figures:
    """What a run came to, from the first byte of its Start to the last one of its End.

    `line_used` is the share of the busier direction's capacity that all its bytes took, `payload`
    that of messages that crossed for the first time; `overhead` are the bytes of frames and link
    in both directions for each byte of message; `wait_ms` from the last byte of a slice to the
    first one of its mask.
    """

    way: str
    baud: int
    slices: int
    seconds: float
    slices_per_second: float
    busier: str
    line_used: float
    payload: float
    wait_ms_median: float | None
    wait_ms_p90: float | None
    overhead: float
    repeated_bytes: int
    bytes_up: int
    bytes_down: int
    machine: str


def figures(path: Path, way: str, baud: int) -> Figures:
    """Return what a recording says; both ends had the rate `baud` all the time."""
    seen, at = frames(path, baud)
    begin, end, slices = span(seen, at)
    totals = {True: Totals(), False: Totals()}
    for one, when in zip(seen, at, strict=True):
        if begin <= when <= end:
            totals[one.up].add(one)
    capacity = (end - begin) * baud / BITS_PER_BYTE
    busier = max(totals, key=lambda up: totals[up].bytes)
    payload = sum(one.payload for one in totals.values())
    repeated = sum(one.again for one in totals.values())
    crossed = sum(one.bytes for one in totals.values())
    waits = waiting(seen, at)
    return Figures(
        way=way,
        baud=baud,
        slices=slices,
        seconds=round(end - begin, 3),
        slices_per_second=round(slices / (end - begin), 2),
        busier="up" if busier else "down",
        line_used=round(totals[busier].bytes / capacity, 4),
        payload=round(totals[busier].payload / capacity, 4),
        wait_ms_median=round(float(np.median(waits)), 1) if waits else None,
        wait_ms_p90=round(float(np.percentile(waits, 90)), 1) if waits else None,
        overhead=round((crossed - payload - repeated) / payload, 4),
        repeated_bytes=repeated,
        bytes_up=totals[True].bytes,
        bytes_down=totals[False].bytes,
        machine=processor(),
    )


def frames(path: Path, baud: int) -> tuple[list[Seen], list[float]]:
    """Return all frames and when the last byte of each had crossed."""
    tap, seen = Tap(), list[Seen]()
    for record in records(path):
        if record.kind in (Kind.UP, Kind.DOWN):
            seen += tap.feed(record.kind is Kind.UP, record.data, record.time)
    left = departures([(one.time, one.size) for one in seen if one.up], baud / BITS_PER_BYTE)
    return seen, [next(left) if one.up else one.time for one in seen]


def departures(writes: Sequence[tuple[float, int]], rate: float) -> Iterator[float]:
    """Yield when the last byte of each write, of a time and a size, had left at `rate` bytes a s.

    A write waits while the port's buffer is full. One that found it so, and was followed as soon as
    that had an end, was taken when the next one began, with the buffer before it. So the line's own
    pace counts, which may fall behind `rate` by more than the buffer holds. Any other write leaves
    once the line is free.
    """
    free = 0.0
    following = [*(time for time, _ in writes[1:]), math.inf]
    for (time, size), then in zip(writes, following, strict=True):
        waits = free - time - WRITE_BUFFER / rate
        if waits > 0 and then < time + 2 * waits + SLACK:
            free = then + WRITE_BUFFER / rate
        free = max(free, time) + size / rate
        yield free


def span(seen: Sequence[Seen], at: Sequence[float]) -> tuple[float, float, int]:
    """Return when the run began and ended, and its slices.

    A served run begins with its Start, a played one with the host's hello that asks for it.
    """
    begin, end, slices = None, None, 0
    for one, when in zip(seen, at, strict=True):
        for data in one.messages:
            match parse(data):
                case HostHello():
                    begin = when
                case Start(slices=number):
                    slices, begin = number, when if one.up else begin
                case End():
                    end = when
    if begin is None or end is None:
        raise GliosliceError("a recording without a whole run; run it again")
    return begin, end, slices


def waiting(seen: Sequence[Seen], at: Sequence[float]) -> list[float]:
    """Return for each slice the milliseconds from its last byte to the first one of its mask."""
    sent: dict[int, float] = {}
    waits = []
    for one, when in zip(seen, at, strict=True):
        for data in one.messages:
            match parse(data):
                case Slice(index=index):
                    sent[index] = when
                case Mask(index=index) if index in sent:
                    waits.append((one.began - sent[index]) * 1000)
                case Empty() as empty if sent:
                    several = range(empty.index, empty.stop)
                    waits += [(one.began - sent[index]) * 1000 for index in several]
    return waits
