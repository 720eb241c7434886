"""A short run of noise over a link: data of every value, in frames of full size, both ways.

Coarse noise makes a network answer with ragged masks, which take a thousand bytes or more, so that
two or three of them hold every value from 0 to 255, as the slices themselves do. The masks are
verified like those of a case.
"""

import time
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from firmware_host import handshake, session
from glioslice.preprocessing import Crop, quantize
from glioslice.wire import messages
from glioslice.wire.connection import Connection
from glioslice.wire.messages import BoardHello, Mode

SLICES = 3

GRAIN = 4.0
"""Voxels: the width of the noise. Finer noise looks healthy to the networks and leaves no mask."""

MEAN, DEVIATION = 1.0, 2.0
"""Z-scores: brighter than brain, so that much of it looks like tumour."""

STALL = 60.0
"""Seconds without a message after which it is given up."""


@dataclass(frozen=True)
class LinkCheck:
    """What crossed: the numbers of different byte values each way, the largest message, seconds."""

    values_up: int
    values_down: int
    largest: tuple[int, int]
    seconds: float

    def __str__(self) -> str:
        """Return the result on one line."""
        both = f"{self.values_up} of 256 byte values up, {self.values_down} down"
        sizes = f"messages of up to {self.largest[0]:,} bytes up, {self.largest[1]:,} down"
        return f"{SLICES} slices of noise in {self.seconds:.1f} s: {both}, {sizes}"


@dataclass
class _Observed:
    """A connection whose messages are counted; everything else is that of the connection."""

    connection: Connection
    up: set[int] = field(default_factory=set)
    down: set[int] = field(default_factory=set)
    largest: list[int] = field(default_factory=lambda: [0, 0])

    def __getattr__(self, name: str) -> object:
        return getattr(self.connection, name)

    def send(self, message: bytes) -> None:
        self.up |= set(message)
        self.largest[0] = max(self.largest[0], len(message))
        self.connection.send(message)

    def receive(self, timeout: float | None = None) -> bytes | None:
        message = self.connection.receive(timeout)
        if message is not None:
            self.down |= set(message)
            self.largest[1] = max(self.largest[1], len(message))
        return message


def may_check(hello: BoardHello) -> bool:
    """Return whether a check disturbs nothing: the board serves and holds no interrupted run."""
    return Mode.SERVE in hello.modes and not hello.kept and hello.slices_at_once == 1


def check_link(connection: Connection, hello: BoardHello) -> LinkCheck:
    """Stream noise to a board and return what crossed.

    Raises what `session.receive_masks` raises, LinkAltersBytes for a link that is not transparent.
    """
    started = time.monotonic()
    observed = _Observed(connection)
    link = cast(Connection, observed)
    choice = handshake.make_host_hello(hello, Mode.SERVE, None)
    messages.send(link, choice)
    x, y = hello.window
    masks = session.new_mask_volume(choice, Crop((x, y, SLICES), (0, 0), (0, SLICES), (x, y)))
    sender = session.send_slices(link, hello, choice, masks, make_noise(hello))
    for _ in session.receive_masks(link, masks, sender, STALL):
        pass
    largest = (observed.largest[0], observed.largest[1])
    seconds = time.monotonic() - started
    return LinkCheck(len(observed.up), len(observed.down), largest, seconds)


def make_noise(hello: BoardHello) -> NDArray[np.int8]:
    """Return quantized slices (SLICES, X, Y, channels) of the same noise each time."""
    shape = (SLICES, *hello.window, len(hello.modalities))
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    noise = gaussian_filter(noise, (0, GRAIN, GRAIN, 0))
    scores = np.clip(noise * (DEVIATION / noise.std()) + MEAN, -hello.clip, hello.clip)
    return quantize(scores, hello.scale, hello.zero_point)
