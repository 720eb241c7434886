"""A run on the board: each slice to its mask or its error, and what End says of all of them."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.board import Board
from device.engine import Engine
from glioslice.labels import to_labels
from glioslice.wire.codecs import CodecError, decode_mask, encode_mask
from glioslice.wire.messages import End, Error, ErrorCode, Mask, MaskDigest, Slice

RUNS = 1
"""The codec in which masks are kept: each on its own, whatever the host asked for."""

Answer = tuple[bytes, tuple[int, int], int] | Error
"""What is kept of a slice: its mask's runs and shape and its microseconds, or why there is none."""


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
        self._answers: dict[int, Answer] = {}
        self._recalled: list[int] = []
        if before is not None:
            self._answers = {i: before._answers[i] for i in range(before.answered)}
            self._recalled = [index for index in self._answers if index >= first]
        self.stages: list[Stages] = []
        self._engine, self._codec = engine, mask_codec
        self._masks = self._failed = self._microseconds = 0
        self._digest = MaskDigest()
        self._trouble = ""

    def serve(self, board: Board, message: Slice) -> Mask | Error:
        """Return the answer to a slice that came over the line."""
        began = time.perf_counter_ns()
        try:
            prepared = board.image(message)
        except CodecError as error:
            text = "the payload of this slice could not be decoded"
            return self.fail(ErrorCode.SLICE, message.index, text, error)
        return self.mask(message.index, prepared, began)

    def mask(self, index: int, prepared: NDArray[Any], began: int) -> Mask | Error:
        """Return the answer to a slice (X, Y, 4) as the network takes it.

        `began` is the `time.perf_counter_ns` at which the work on this slice began.
        """
        decoded = time.perf_counter_ns()
        try:
            regions = self._engine.invoke(prepared)
            invoked = time.perf_counter_ns()
            labels = np.ascontiguousarray(to_labels(regions))
            payload = encode_mask(self._codec, labels)
        except Exception as error:  # whatever a runtime or a delegate raises: the stream goes on
            return self.fail(ErrorCode.ENGINE, index, "the network failed on this slice", error)
        self.waiting.discard(index)
        self._digest.add(index, labels.tobytes())
        taken = Stages(decoded - began, invoked - decoded, time.perf_counter_ns() - invoked)
        self.stages.append(taken)
        microseconds = taken.whole // 1000
        self._microseconds += microseconds
        self._masks += 1
        self._answers[index] = (
            encode_mask(RUNS, labels),
            (labels.shape[0], labels.shape[1]),
            microseconds,
        )
        return Mask(index, self._codec, microseconds, payload)

    @property
    def answered(self) -> int:
        """How many leading slices have their answer, counted from the first of the volume."""
        return next(i for i in count() if i not in self._answers)

    def recalled(self) -> Iterator[Mask | Error]:
        """Yield the answers that this run takes over, as they were."""
        for index in self._recalled:
            self.waiting.discard(index)
            answer = self._answers[index]
            if isinstance(answer, Error):
                self._failed += 1
                yield answer
                continue
            runs, shape, microseconds = answer
            labels = decode_mask(RUNS, runs, shape)
            self._digest.add(index, labels.tobytes())
            self._masks += 1
            self._microseconds += microseconds
            yield Mask(index, self._codec, microseconds, encode_mask(self._codec, labels))

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
