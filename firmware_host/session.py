"""One run over an open connection: slices leave from a thread of their own, masks are gathered.

    feeder = serve(connection, hello, choice, run, slices)
    for index in arrivals(connection, run, feeder): ...     # an index each time a slice is settled

Whoever shows progress or a live page does so in the loop's body. What arrived before an exception
stays in `run`.

A board that restarted in the middle of a run: it is greeted anew and does what is missing.

Serving, the host sends the slices that have no answer yet. Playing, the board begins again, and so
does the run: what had arrived may have been of another case.
"""

import hashlib
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from firmware_host import handshake
from firmware_host.handshake import refusal
from firmware_host.mask_volume import Run
from glioslice.errors import GliosliceError
from glioslice.preprocessing import Crop
from glioslice.wire import messages
from glioslice.wire.codecs import IMAGES, encode_image, encoder_of
from glioslice.wire.connection import Connection
from glioslice.wire.messages import (
    BoardHello,
    Empty,
    End,
    Error,
    HostHello,
    Mask,
    MessageError,
    Mode,
    Slice,
    Start,
    Volume,
)

ENCODERS = 2
"""Slices encoded at once: a core alone makes 90 of them a second, too few for a fast line."""

WAIT = 0.5
"""Seconds between two looks at the feeder."""

STALL = 300.0
"""Seconds without a word from a board whose link is alive; a raw slice at 9600 baud takes 130."""


class Feeder(threading.Thread):
    """Encodes and sends slices (Z', X, Y, channels) from `first` on while masks come back.

    `send` holds it at 64 kB on their way. It ends with the connection; `failure` says why.
    """

    def __init__(
        self, connection: Connection, codec: int, slices: NDArray[np.int8], first: int = 0
    ) -> None:
        super().__init__(name="feeder", daemon=True)
        self._connection, self._codec, self.slices = connection, codec, slices
        self._first = first
        self.failure: Exception | None = None

    def run(self) -> None:
        """Send every slice, in order."""
        try:
            with ThreadPoolExecutor(ENCODERS, "encoder") as pool:
                for message in ahead(pool, self._encode, range(self._first, len(self.slices))):
                    messages.send(self._connection, message)
        except Exception as error:  # raised again by whoever waits for the masks
            self.failure = error

    def _encode(self, index: int) -> Slice:
        """Return the message that carries a slice."""
        return Slice(index, self._codec, encode_image(self._codec, self.slices[index]))


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[int], Slice], indices: Iterable[int]
) -> Iterator[Slice]:
    """Yield what `work` makes of `indices`, in their order, with the next ones under way."""
    left = iter(indices)
    begun = deque(pool.submit(work, index) for index in islice(left, ENCODERS))
    while begun:
        done = begun.popleft().result()
        begun.extend(pool.submit(work, index) for index in islice(left, 1))
        yield done


def new_run(choice: HostHello, crop: Crop) -> Run:
    """Return a run that is to be served, of which nothing has arrived."""
    return Run(Mode.SERVE, IMAGES[choice.image_codec].name, crop)


def serve(
    connection: Connection, hello: BoardHello, choice: HostHello, run: Run, slices: NDArray[np.int8]
) -> Feeder:
    """Tell the board which slices come, and let them: those that neither end has an answer to.

    A board that remembers this run from a host that was lost sends its answers by itself.
    """
    key, first = key_of(hello, choice.image_codec, slices), run.begin_part()
    messages.send(connection, Start(len(slices), first=first, key=key))
    known = hello.answered if hello.kept == key else 0
    feeder = Feeder(connection, choice.image_codec, slices, max(first, known))
    feeder.start()
    return feeder


def key_of(hello: BoardHello, codec: int, slices: NDArray[np.int8]) -> int:
    """Return the number by which a board knows this run again, not 0.

    It is made of what is to cross and of a random number of the board, so that it names no scan.
    Slices that lose something cross alike only if the same encoder, set alike, makes them.
    """
    text = struct.pack("<QB4H", hello.boot, codec, *slices.shape) + slices.tobytes()
    text += encoder_of(codec)
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") or 1


def begin_playing(connection: Connection, stall: float = STALL) -> Volume:
    """Wait until the board has read its case, and return where its masks belong.

    Raises BoardFailed if it cannot be read, MessageError if something else comes.
    """
    deadline = time.monotonic() + stall
    while (message := messages.receive(connection, WAIT)) is None:
        if time.monotonic() >= deadline:
            raise stalled(connection, stall)
    if isinstance(message, Error):
        raise refusal(message)
    if not isinstance(message, Start) or message.volume is None:
        raise MessageError("the far end sent no volume where one was expected")
    return message.volume


def arrivals(
    connection: Connection, run: Run, feeder: Feeder | None = None, stall: float = STALL
) -> Iterator[int]:
    """Yield the index of each slice as its mask, or its failure, arrives; ends with the run.

    Raises what the connection raises, and BoardFailed, MessageError, CodecError, DigestWrong.
    """
    heard = time.monotonic()
    while True:
        message = messages.receive(connection, WAIT)
        now = time.monotonic()
        if message is None:
            if feeder and feeder.failure:
                raise feeder.failure
            if now - heard >= stall:
                raise stalled(connection, stall)
            continue
        heard = now
        match message:
            case Mask() | Empty():
                yield from run.take(message)
            case Error(index=-1):
                raise refusal(message)
            case Error():
                run.fail(message)
                yield message.index
            case End():
                run.end(message)
                return
            case _:
                name = type(message).__name__
                raise MessageError(f"the far end sent a {name} out of turn; start its runner anew")


def stalled(connection: Connection, seconds: float) -> GliosliceError:
    """Return the error for a board that is there and says nothing."""
    return GliosliceError(
        f"{connection.name}: the board is there but has sent nothing for {seconds:.0f} s; start "
        "its runner anew"
    )


def rejoin(
    line: Connection,
    hello: BoardHello,
    choice: HostHello,
    run: Run,
    *,
    feeder: Feeder | None,
    volume: Volume | None,
) -> tuple[BoardHello, Feeder | None]:
    """Go on with `run` on a board that has restarted; return its hello and the new feeder.

    Raises GliosliceError if the board is another one now, and what `greet` raises.
    """
    if feeder is not None:
        feeder.join()  # it must not send into the new session
    again = handshake.greet(line, handshake.PATIENCE)
    if replace(again, boot=hello.boot, kept=hello.kept, answered=hello.answered) != hello:
        raise GliosliceError(f"{line.name}: the board restarted as another one; run it again")
    messages.send(line, choice)
    if choice.mode is Mode.PLAY:
        if begin_playing(line) != volume:
            raise GliosliceError(
                f"{line.name}: the board restarted with another case; run it again"
            )
        run.begin_again()
        return again, None
    if feeder is None:  # a recording, which has the answers without slices
        run.begin_part()
        return again, None
    return again, serve(line, again, choice, run, feeder.slices)
