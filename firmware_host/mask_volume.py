"""What has arrived of a run, checked as it comes."""

import time

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.preprocessing import Crop, paste
from glioslice.wire.codecs import LOSSLESS, decode_mask
from glioslice.wire.messages import UNKNOWN, Empty, End, Error, Mask, MaskDigest, MessageError, Mode


class DigestWrong(GliosliceError):
    """The masks here are not those that the board sent: none of them can be trusted."""


class Run:
    """The masks of one run, on the voxels of `crop`; `images` names the codec of its slices.

    `quality` (slices,) is how sure the board is of each, 0 to 254, or 255 where that is not known.
    """

    def __init__(self, mode: Mode, images: str | None, crop: Crop) -> None:
        self.mode, self.images, self.crop = mode, images, crop
        self.slices = crop.z[1] - crop.z[0]
        self.arrived: NDArray[np.bool_] = np.zeros(self.slices, np.bool_)
        self.quality: NDArray[np.uint8] = np.full(self.slices, UNKNOWN, np.uint8)
        self.failed: dict[int, str] = {}
        self.times: dict[int, float] = {}
        self._masks: NDArray[np.uint8] = np.zeros((self.slices, *crop.window), np.uint8)
        self._previous: NDArray[np.uint8] | None = None
        self._digest = MaskDigest()
        self._first = 0
        self._began = time.monotonic()
        self._seconds: float | None = None

    @property
    def lossless(self) -> bool | None:
        """Whether slices cross as they are; None where none does."""
        if self.images is None:
            return None
        return any(codec.name == self.images for codec in LOSSLESS.values())

    @property
    def masks(self) -> int:
        """How many masks have arrived."""
        return int(self.arrived.sum())

    @property
    def milliseconds(self) -> list[float]:
        """How long each mask took on the device, in the order of arrival; `times` by index."""
        return list(self.times.values())

    @property
    def complete(self) -> bool:
        """Whether the run ended, its digest was right, and every slice has its mask."""
        return self._seconds is not None and bool(self.arrived.all())

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far."""
        return time.monotonic() - self._began if self._seconds is None else self._seconds

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the kit's labels (window X, window Y) of a slice; 0 outside the volume."""
        (_, x), (_, y) = self.crop.overlap(0), self.crop.overlap(1)
        inside = np.zeros(self.crop.window, np.uint8)
        inside[x, y] = self._masks[index, x, y]
        return inside

    def labels(self) -> NDArray[np.uint8]:
        """Return the kit's labels (X, Y, Z) of the whole volume; 0 where no mask has arrived."""
        return paste(self._masks, self.crop)

    def begin_part(self) -> int:
        """Go on with another board, or the same one anew; return the first slice it has to do.

        What the next End says is compared with what comes from now on, and the first mask of it
        builds on none.
        """
        settled = self.arrived.copy()
        settled[list(self.failed)] = True
        self._first = self.slices - 1 if settled.all() else int(np.argmin(settled))
        # Where only the board's End is missing, the last slice is done again for it.
        self.arrived[self._first] = False
        self.failed.pop(self._first, None)
        self._previous = None
        self._digest = MaskDigest()
        return self._first

    def begin_again(self) -> None:
        """Forget what has arrived: the board plays from the beginning."""
        self.arrived[:] = False
        self.failed.clear()
        self.times.clear()
        self.quality[:] = UNKNOWN
        self.begin_part()

    def take(self, message: Mask | Empty) -> list[int]:
        """Take in a mask, or several empty ones; return the indices of their slices.

        Raises MessageError for one too many, CodecError for a damaged one.
        """
        told = list(message.each())
        for index, _, _ in told:
            self._check(index)
        window = self.crop.window
        if isinstance(message, Empty):
            mask = np.zeros(window, np.uint8)
        else:
            mask = decode_mask(message.codec, message.payload, window, self._previous)
        self._previous, labels = mask, mask.tobytes()
        for index, microseconds, quality in told:
            self._masks[index] = mask
            self.arrived[index] = True
            self.quality[index] = quality
            self.times[index] = microseconds / 1000
            self._digest.add(index, labels)
        return [index for index, _, _ in told]

    def fail(self, message: Error) -> None:
        """Take in that a slice has no mask; raises MessageError for one too many."""
        self._check(message.index)
        self.failed[message.index] = message.text or message.code.name.lower()

    def end(self, message: End) -> None:
        """Compare what the board sent with what is here.

        Raises DigestWrong if they differ, GliosliceError if the board left slices out.
        """
        sent = (message.masks, message.failed)
        failed = sum(index >= self._first for index in self.failed)
        here = (int(self.arrived[self._first :].sum()), failed)
        if sent != here:
            raise DigestWrong(
                f"the board sent {sent[0]} masks and {sent[1]} failures, {here[0]} and {here[1]} "
                "are here; nothing was kept, run it again"
            )
        if message.digest != self._digest.hexdigest():
            raise DigestWrong(
                "the masks here are not those that the board made: their digest differs; nothing "
                "was kept, run it again"
            )
        if self._first + sum(here) < self.slices:
            done = self._first + sum(here)
            raise GliosliceError(f"the board ended the run after {done} of {self.slices}")
        self._seconds = self.seconds

    def _check(self, index: int) -> None:
        if not 0 <= index < self.slices:
            raise MessageError(f"the far end answered slice {index} of {self.slices}")
        if self.arrived[index] or index in self.failed:
            raise MessageError(f"the far end answered slice {index} twice")
