"""A run on the board: each slice to its mask or its error, and what End says of all of them.

Answers on their way out: empty masks share a message while those before are on theirs.

A line that is slower than the board carries fewer bytes that way. One that is idle carries each at
once, and so it is before the board waits for a slice.

The run that a board remembers when its host is gone, so that no slice is done twice.

A host that was killed and started again with the same case finds its run by a key, which the host
makes from the slices and from the number of this start of the runner: it means nothing elsewhere,
and a board that restarted knows none. Kept are the answers, never the images. A run is forgotten
when its host has said goodbye after its end, or when another one begins.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device.board import Board
from device.engine import Engine
from glioslice.labels import to_labels
from glioslice.wire.codecs import CodecError, decode_mask, encode_mask
from glioslice.wire.messages import Empty, End, Error, ErrorCode, Mask, MaskDigest, Mode, Slice

Answer = Mask | Empty | Error
"""What a slice gets, and what is kept of it; a mask may build on that of the slice before."""


@dataclass(frozen=True)
class Stages:
    """Nanoseconds of a slice that came: to the network's input, to its regions, to a payload."""

    decode: int
    invoke: int
    encode: int

    @property
    def whole(self) -> int:
        """The nanoseconds of all three."""
        return self.decode + self.invoke + self.encode


class Run:
    """One run of `slices` slices through `engine`; masks leave in the codec of that number.

    `waiting` are the indices that have no answer yet, `stages` those of each mask so far. Slices
    before `first` are not asked for. With `before`, a run that a host comes back to, its leading
    answers are not worked out again: `recalled` gives them.
    """

    def __init__(
        self,
        engine: Engine,
        slices: int,
        mask_codec: int,
        first: int = 0,
        before: "Run | None" = None,
    ) -> None:
        self.waiting = set(range(first, slices))
        self.ended = False
        self.stages: list[Stages] = []
        self._engine, self._codec, self._first = engine, mask_codec, first
        self._answers: dict[int, Answer] = {}
        if before is not None:
            self._answers = {i: before._answers[i] for i in range(before.answered)}
        self._last: tuple[int, NDArray[np.uint8] | None] = (-1, None)
        self._masks = self._failed = self._microseconds = 0
        self._digest = MaskDigest()
        self._trouble = ""

    def serve(self, board: Board, message: Slice) -> Answer:
        """Return the answer to a slice that came over the line."""
        began = time.perf_counter_ns()
        try:
            prepared = board.image(message)
        except CodecError as error:
            text = "the payload of this slice could not be decoded"
            return self.fail(ErrorCode.SLICE, message.index, text, error)
        return self.mask(message.index, prepared, began)

    def mask(self, index: int, prepared: NDArray[Any], began: int) -> Answer:
        """Return the answer to a slice (X, Y, 4) as the network takes it.

        `began` is the `time.perf_counter_ns` at which the work on this slice began.
        """
        decoded = time.perf_counter_ns()
        try:
            logits = self._engine.invoke(prepared)
            regions = self._engine.regions(logits)
            invoked = time.perf_counter_ns()
            labels = np.ascontiguousarray(to_labels(regions))
            quality = self._engine.quality(logits)
            payload = self._encode(index, labels)
        except Exception as error:  # whatever a runtime or a delegate raises: the stream goes on
            return self.fail(ErrorCode.ENGINE, index, "the network failed on this slice", error)
        taken = Stages(decoded - began, invoked - decoded, time.perf_counter_ns() - invoked)
        self.stages.append(taken)
        return self._done(index, payload, taken.whole // 1000, quality)

    @property
    def answered(self) -> int:
        """How many leading slices have their answer, counted from the first of the volume."""
        return next(i for i in count() if i not in self._answers)

    def recalled(self) -> Iterator[Answer]:
        """Yield the answers that this run takes over, encoded for the host that asks now."""
        kept: NDArray[np.uint8] | None = None
        for index, answer in sorted(self._answers.items()):
            if isinstance(answer, Error):
                if index >= self._first:
                    self.waiting.discard(index)
                    self._failed += 1
                    yield answer
                continue
            kept = self._decode(answer, kept)
            if index < self._first:
                continue
            payload = self._encode(index, kept)
            for _, microseconds, quality in answer.each():  # it is one
                yield self._done(index, payload, microseconds, quality)

    def _encode(self, index: int, labels: NDArray[np.uint8]) -> bytes | None:
        """Return a mask's payload, None for an empty one; that of the next slice builds on it."""
        last, previous = self._last
        if last != index - 1:  # slices came out of turn, or one failed: kept ones go by their index
            previous = None
        payload = encode_mask(self._codec, labels, previous) if labels.any() else None
        self._last = index, labels
        self._digest.add(index, labels.tobytes())
        return payload

    def _decode(self, answer: Mask | Empty, kept: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """Return the mask of an answer, where `kept` is that of the one before."""
        window = self._engine.card.window
        if isinstance(answer, Empty):
            return np.zeros(window, np.uint8)
        return decode_mask(answer.codec, answer.payload, window, kept)

    def _done(self, index: int, payload: bytes | None, microseconds: int, quality: int) -> Answer:
        """Keep and return the answer to a slice that went well."""
        self.waiting.discard(index)
        self._masks += 1
        self._microseconds += microseconds
        answer: Answer
        if payload is None:
            answer = Empty(index, (microseconds,), (quality,))
        else:
            answer = Mask(index, self._codec, microseconds, payload, quality)
        self._answers[index] = answer
        return answer

    def fail(self, code: ErrorCode, index: int, text: str, cause: Exception) -> Error:
        """Return the answer to a slice that failed; `cause` stays on the board."""
        self.waiting.discard(index)
        self._failed += 1
        self._trouble = self._trouble or f"; slice {index} was the first: {cause!r}"
        self._answers[index] = Error(code, index, text)
        return Error(code, index, text)

    def end(self) -> End:
        """Return what closes the run, with the totals up to now."""
        return End(self._masks, self._failed, self._microseconds, self._digest.hexdigest())

    def summary(self) -> str:
        """Return a line about the run, for the board's own log."""
        said = f"{len(self.stages)} masks"
        if self.stages:
            parts = [
                f"{name} {median(getattr(one, name) for one in self.stages) / 1e6:.1f}"
                for name in ("whole", "decode", "invoke", "encode")
            ]
            said += f", median ms: {', '.join(parts)}"
        return f"{said}; {self._failed} failed{self._trouble}"


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


@dataclass
class Kept:
    """The last run, if it has to be remembered, and by what it is found."""

    run: Run | None = None
    mode: Mode = Mode.SERVE
    key: int = 0

    def keep(self, run: Run, mode: Mode, key: int) -> None:
        """Remember this run instead of the one before."""
        self.run, self.mode, self.key = run, mode, key

    def forget(self) -> None:
        """Remember nothing."""
        self.run, self.key = None, 0

    def said(self) -> tuple[int, int]:
        """Return the key and the leading answers of a served run, as BoardHello says them."""
        if self.run is None or self.mode is not Mode.SERVE or not self.key:
            return 0, 0
        return self.key, self.run.answered

    def found(self, mode: Mode, key: int) -> Run | None:
        """Return the run that a host comes back to: a played one needs no key."""
        same = self.mode is mode and (mode is Mode.PLAY or (key and self.key == key))
        return self.run if same else None
