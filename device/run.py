"""One run on the board: every slice of a volume becomes a mask or an error.

`SegmentationRun` turns slices into results and totals them for End. `ResultSender` sends the
results; consecutive empty masks share one message while earlier messages are still on their way, so
a slow link carries fewer bytes. `ResumableRun` is the run that a board remembers after it lost its
host, so that no slice is computed twice.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from statistics import median
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device.board import Board
from device.confidence import mask_confidence
from glioslice.labels import to_labels
from glioslice.wire.codecs import CodecError, decode_image, decode_mask, encode_mask
from glioslice.wire.messages import (
    Empty,
    End,
    Error,
    ErrorCode,
    Mask,
    MaskDigest,
    Mode,
    Slice,
    Start,
)

logger = logging.getLogger(__name__)

SliceResult = Mask | Empty | Error
"""What a slice becomes. A mask may be encoded as the difference to the mask of the slice before."""


@dataclass(frozen=True)
class StageTimes:
    """Nanoseconds of one slice: decode the image, run the network, encode the mask."""

    decode: int
    invoke: int
    encode: int

    @property
    def whole(self) -> int:
        """The sum of all three."""
        return self.decode + self.invoke + self.encode


class SegmentationRun:
    """One run of `slices` slices on `board`; masks are encoded with the codec `mask_codec`.

    `pending` holds the indices without a result, `stage_times` an entry for each computed mask.
    The host does not want slices before `start.first`. If `previous` is given, a run that a host
    comes back to, its leading results are not computed again: `recalled` yields them.
    """

    def __init__(
        self,
        board: Board,
        start: Start,
        mask_codec: int,
        previous: "SegmentationRun | None" = None,
    ) -> None:
        self.pending = set(range(start.first, start.slices))
        self.ended = False
        self.stage_times: list[StageTimes] = []
        self._board, self._engine = board, board.engine
        self._codec, self._first = mask_codec, start.first
        channels = range(len(board.hello.modalities))
        self._present = [channel for channel in channels if not start.absent >> channel & 1]
        self._results: dict[int, SliceResult] = {}
        if previous is not None:
            known = range(min(previous.leading_results, start.slices))
            self._results = {index: previous._results[index] for index in known}
        self._last: tuple[int, NDArray[np.uint8] | None] = (-1, None)
        self._digest = MaskDigest()

    @property
    def leading_results(self) -> int:
        """The number of slices with a result before the first one without, from slice 0 on."""
        return next(i for i in count() if i not in self._results)

    def segment_message(self, message: Slice) -> SliceResult:
        """Return the result of a slice that was received."""
        started = time.perf_counter_ns()
        hello = self._board.hello
        try:
            shape = (*hello.window, len(self._present))
            received = decode_image(message.codec, message.payload, shape)
        except CodecError as error:
            text = "the payload of this slice could not be decoded"
            return self._fail(ErrorCode.SLICE, message.index, text, error)
        image: NDArray[Any] = received
        if len(self._present) < len(hello.modalities):
            shape = (*hello.window, len(hello.modalities))
            image = np.full(shape, hello.zero_point, np.int8)
            image[..., self._present] = received
        if self._engine.input.dtype != np.int8:
            steps = image.astype(np.float32) - np.float32(hello.zero_point)
            image = steps * np.float32(hello.scale)
        return self.segment_slice(message.index, image, started)

    def segment_slice(self, index: int, prepared: NDArray[Any], started: int) -> SliceResult:
        """Return the result of a slice (X, Y, 4) in the network's input type.

        `started` is the `time.perf_counter_ns` at which work on this slice began.
        """
        decoded = time.perf_counter_ns()
        engine = self._engine
        try:
            logits = engine.logits(prepared)
            regions = engine.regions(logits)
            invoked = time.perf_counter_ns()
            labels = np.ascontiguousarray(to_labels(regions))
            confidence = mask_confidence(logits, engine.logit_scale, engine.logit_zero_point)
            payload = self._encode(index, labels)
        except Exception as error:  # whatever a runtime or a delegate raises: the run continues
            return self._fail(ErrorCode.ENGINE, index, "the network failed on this slice", error)
        finished = time.perf_counter_ns()
        self.stage_times.append(
            StageTimes(decoded - started, invoked - decoded, finished - invoked)
        )
        microseconds = (finished - started) // 1000
        result: SliceResult
        if payload is None:
            result = Empty(index, (microseconds,), (confidence,))
        else:
            result = Mask(index, self._codec, microseconds, payload, confidence)
        self._results[index] = result
        self.pending.discard(index)
        return result

    def recalled(self) -> Iterator[SliceResult]:
        """Yield the results taken over from the previous run, masks in this run's codec."""
        labels: NDArray[np.uint8] | None = None
        for index, result in sorted(self._results.items()):
            if not isinstance(result, Error):
                labels = self._decode(result, labels)
            if index < self._first:
                continue
            if labels is not None and not isinstance(result, Error):
                payload = self._encode(index, labels)
                if payload is not None and isinstance(result, Mask):
                    result = replace(result, codec=self._codec, payload=payload)
            self._results[index] = result
            self.pending.discard(index)
            yield result

    def end(self) -> End:
        """Return the message that ends the run, with its totals so far."""
        results = [one for index, one in self._results.items() if index >= self._first]
        masks = sum(isinstance(one, Mask | Empty) for one in results)
        microseconds = sum(one.device_us for one in results if isinstance(one, Mask))
        microseconds += sum(one.device_us[0] for one in results if isinstance(one, Empty))
        return End(masks, len(results) - masks, microseconds, self._digest.hexdigest())

    def summary(self) -> str:
        """Return one line about the run for the board's log."""
        text = f"{len(self.stage_times)} masks computed"
        if self.stage_times:
            medians = ", ".join(
                f"{name} {median(getattr(times, name) for times in self.stage_times) / 1e6:.1f}"
                for name in ("decode", "invoke", "encode")
            )
            text += f", median ms: {medians}"
        return f"{text}; {self.end().failed} slices failed"

    def _encode(self, index: int, labels: NDArray[np.uint8]) -> bytes | None:
        """Return a mask's payload, None if the mask is empty; the next mask may build on it."""
        last_index, previous = self._last
        if last_index != index - 1:  # slices came out of order, or one failed
            previous = None
        payload = encode_mask(self._codec, labels, previous) if labels.any() else None
        self._last = index, labels
        self._digest.add(index, labels.tobytes())
        return payload

    def _decode(
        self, result: Mask | Empty, previous: NDArray[np.uint8] | None
    ) -> NDArray[np.uint8]:
        """Return the mask of a result; `previous` is the mask of the result before it."""
        window = self._engine.card.window
        if isinstance(result, Empty):
            return np.zeros(window, np.uint8)
        return decode_mask(result.codec, result.payload, window, previous)

    def _fail(self, code: ErrorCode, index: int, text: str, cause: Exception) -> Error:
        """Return the result of a slice that failed; only the log gets the cause."""
        logger.warning("slice %d failed: %r", index, cause)
        error = Error(code, index, text)
        self._results[index] = error
        self.pending.discard(index)
        return error


class DeferringQueue(Protocol):
    """A connection or the sender of a link: it sends messages, and may defer the last one."""

    def send(self, message: bytes) -> None:
        """Queue a message, after the deferred one."""

    def send_deferred(self, message: bytes) -> None:
        """Queue a message that leaves once all before it are acknowledged, or before the next."""

    def withdraw(self) -> bytes | None:
        """Return the deferred message, which is then not sent; None if it was sent already."""


class ResultSender:
    """Sends the results of a session; an empty mask joins earlier ones that have not left yet."""

    def __init__(self, queue: DeferringQueue) -> None:
        self._queue = queue
        self._last: Empty | None = None

    def send(self, result: SliceResult) -> None:
        """Send one result. An idle link carries it at once."""
        if not isinstance(result, Empty):
            self._queue.send(result.to_bytes())
            return
        joined = self._last.joined_with(result) if self._last else None
        if joined is not None and self._queue.withdraw() is not None:
            result = joined
        self._last = result
        self._queue.send_deferred(result.to_bytes())


@dataclass
class ResumableRun:
    """The last run, if there is one to remember, and what identifies it.

    A host makes the key from its slices and from the board's boot number, so it means nothing
    elsewhere, and a restarted board knows no run. Results are kept, images never are. A run is
    forgotten when its host closes the session after the end of the run, or when another one begins.
    """

    run: SegmentationRun | None = None
    mode: Mode = Mode.SERVE
    key: int = 0

    def remember(self, run: SegmentationRun, mode: Mode, key: int) -> None:
        """Replace the remembered run."""
        self.run, self.mode, self.key = run, mode, key

    def forget(self) -> None:
        """Remember no run."""
        self.run, self.key = None, 0

    def announcement(self) -> tuple[int, int]:
        """Return key and leading results of a served run for BoardHello; zeros if there is none."""
        if self.run is None or self.mode is not Mode.SERVE or not self.key:
            return 0, 0
        return self.key, self.run.leading_results

    def find(self, mode: Mode, key: int) -> SegmentationRun | None:
        """Return the run that a host comes back to; a played run needs no key."""
        same = self.mode is mode and (mode is Mode.PLAY or (key and self.key == key))
        return self.run if same else None
