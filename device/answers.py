"""A run on the board: each slice to its mask or its error, and what End says of all of them."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.engine import Engine
from glioslice.labels import to_labels
from glioslice.wire.codecs import encode_mask
from glioslice.wire.messages import End, Error, ErrorCode, Mask, MaskDigest


class Run:
    """One run of `slices` slices through `engine`; masks leave in the codec of that number.

    `waiting` are the indices that have no answer yet.
    """

    def __init__(self, engine: Engine, slices: int, mask_codec: int) -> None:
        self.waiting = set(range(slices))
        self._engine, self._codec = engine, mask_codec
        self._masks = self._failed = self._microseconds = 0
        self._digest = MaskDigest()
        self._trouble = ""

    def mask(self, index: int, prepared: NDArray[Any], began: int) -> Mask | Error:
        """Return the answer to a slice (X, Y, 4) as the network takes it.

        `began` is the `time.perf_counter_ns` at which the work on this slice began.
        """
        try:
            labels = np.ascontiguousarray(to_labels(self._engine.invoke(prepared)))
            payload = encode_mask(self._codec, labels)
        except Exception as error:  # whatever a runtime or a delegate raises: the stream goes on
            return self.fail(ErrorCode.ENGINE, index, "the network failed on this slice", error)
        self.waiting.discard(index)
        self._digest.add(index, labels.tobytes())
        microseconds = (time.perf_counter_ns() - began) // 1000
        self._masks += 1
        self._microseconds += microseconds
        return Mask(index, self._codec, microseconds, payload)

    def fail(self, code: ErrorCode, index: int, text: str, cause: Exception) -> Error:
        """Return the answer to a slice that failed; `cause` stays on the board."""
        self.waiting.discard(index)
        self._failed += 1
        self._trouble = self._trouble or f"; slice {index} was the first: {cause!r}"
        return Error(code, index, text)

    def end(self) -> End:
        """Return what closes the run, with the totals up to now."""
        return End(self._masks, self._failed, self._microseconds, self._digest.hexdigest())

    def summary(self) -> str:
        """Return a line about the run, for the board's own log."""
        each = self._microseconds / 1000 / max(self._masks, 1)
        return f"{self._masks} masks of {each:.1f} ms, {self._failed} failed{self._trouble}"
