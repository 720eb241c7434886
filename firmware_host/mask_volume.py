"""The masks of a run: collected as they arrive over the link, and verified at its end."""

import copy
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.postprocessing import Postprocessed, PostprocessingRules, postprocess
from glioslice.preprocessing import Crop, extract_slices, restore_volume
from glioslice.wire.codecs import LOSSLESS, decode_mask
from glioslice.wire.messages import UNKNOWN, Empty, End, Error, Mask, MaskDigest, MessageError, Mode


class DigestMismatch(GliosliceError):
    """The received masks differ from those that the board sent: none can be trusted."""


class MaskVolume:
    """The masks of one run, on the voxels of `crop`.

    `image_codec` names the codec of the slices that were sent, None for a played run. `quality`
    (slices,) is the board's confidence in each mask, 0 to 254; 255 means unknown. `milliseconds`
    holds the time that each mask took on the device, by slice index in the order of arrival.
    `temperature_c` is what the board sent last, None if it sends none.
    """

    def __init__(self, mode: Mode, image_codec: str | None, crop: Crop) -> None:
        self.mode, self.image_codec, self.crop = mode, image_codec, crop
        self.slice_count = crop.z[1] - crop.z[0]
        self.received: NDArray[np.bool_] = np.zeros(self.slice_count, np.bool_)
        self.quality: NDArray[np.uint8] = np.full(self.slice_count, UNKNOWN, np.uint8)
        self.failed: dict[int, str] = {}
        self.milliseconds: dict[int, float] = {}
        self.temperature_c: float | None = None
        self._masks: NDArray[np.uint8] = np.zeros((self.slice_count, *crop.window), np.uint8)
        self._previous: NDArray[np.uint8] | None = None
        self._digest = MaskDigest()
        self._first = 0
        self._started = time.monotonic()
        self._seconds: float | None = None

    @property
    def lossless(self) -> bool | None:
        """Whether the slices crossed the link unchanged; None if none crossed."""
        if self.image_codec is None:
            return None
        return any(codec.name == self.image_codec for codec in LOSSLESS.values())

    @property
    def mask_count(self) -> int:
        """The number of masks received."""
        return int(self.received.sum())

    @property
    def complete(self) -> bool:
        """Whether the digest was verified and every slice has its mask."""
        return self._seconds is not None and bool(self.received.all())

    @property
    def seconds(self) -> float:
        """The duration of the run, so far if it is still going on."""
        return time.monotonic() - self._started if self._seconds is None else self._seconds

    def number(self, index: int) -> int:
        """Return the number of slice `index` as people read it: 1 is the lowest of the volume."""
        return self.crop.z[0] + index + 1

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the labels (window X, window Y) of a slice; 0 outside the volume."""
        (_, x), (_, y) = self.crop.overlap(0), self.crop.overlap(1)
        inside = np.zeros(self.crop.window, np.uint8)
        inside[x, y] = self._masks[index, x, y]
        return inside

    def labels(self) -> NDArray[np.uint8]:
        """Return the labels (X, Y, Z) of the whole volume; 0 where no mask was received."""
        return restore_volume(self._masks, self.crop)

    def postprocessed(self, rules: PostprocessingRules) -> "ProcessedMasks":
        """Return a copy whose masks are those of the whole volume after `rules`.

        A volume that lacks masks is returned as it is: how large a part is that the missing slices
        cut, or how much enhances in them, is unknown.
        """
        if not rules or not self.complete:
            return ProcessedMasks(self, None, rules)
        result = postprocess(self.labels(), rules)
        processed = copy.copy(self)
        processed._masks = extract_slices(result.labels, self.crop)
        changed = [i for i in range(self.slice_count) if (processed.mask(i) != self.mask(i)).any()]
        return ProcessedMasks(processed, result, rules, tuple(changed))

    def start_session(self) -> int:
        """Prepare for masks from a new session; return the first slice that the board must send.

        The digest covers only what arrives in this session, and its first mask cannot be coded
        as a change of an earlier one.
        """
        settled = self.received.copy()
        settled[list(self.failed)] = True
        # If only the board's End is missing, the last slice is requested once more for it.
        self._first = self.slice_count - 1 if settled.all() else int(np.argmin(settled))
        self.received[self._first] = False
        self.failed.pop(self._first, None)
        self._previous = None
        self._digest = MaskDigest()
        return self._first

    def reset(self) -> None:
        """Discard all masks: the board starts its volume from the beginning."""
        self.received[:] = False
        self.failed.clear()
        self.milliseconds.clear()
        self.quality[:] = UNKNOWN
        self.start_session()

    def add(self, message: Mask | Empty) -> list[int]:
        """Store one mask, or several empty ones; return the indices of their slices.

        Raises MessageError for an unexpected index and CodecError for a damaged mask.
        """
        entries = list(message.per_slice())
        for index, _, _ in entries:
            self._check_index(index)
        window = self.crop.window
        if isinstance(message, Empty):
            mask = np.zeros(window, np.uint8)
        else:
            mask = decode_mask(message.codec, message.payload, window, self._previous)
        self._previous, labels = mask, mask.tobytes()
        for index, microseconds, quality in entries:
            self._masks[index] = mask
            self.received[index] = True
            self.quality[index] = quality
            self.milliseconds[index] = microseconds / 1000
            self._digest.add(index, labels)
        return [index for index, _, _ in entries]

    def add_failure(self, message: Error) -> None:
        """Note that the board failed on a slice; raises MessageError for an unexpected index."""
        self._check_index(message.index)
        self.failed[message.index] = message.text or message.code.name.lower()

    def finish(self, message: End) -> None:
        """Verify the received masks against the board's counts and digest.

        Raises DigestMismatch if they differ, GliosliceError if the board left slices out.
        """
        sent = (message.masks, message.failed)
        failed = sum(index >= self._first for index in self.failed)
        received = (int(self.received[self._first :].sum()), failed)
        if sent != received:
            raise DigestMismatch(
                f"the board sent {sent[0]} masks and {sent[1]} failures, but {received[0]} and "
                f"{received[1]} were received; nothing was kept, run it again"
            )
        if message.digest != self._digest.hexdigest():
            raise DigestMismatch(
                "the received masks are not those that the board sent: their digest differs; "
                "nothing was kept, run it again"
            )
        if self._first + sum(received) < self.slice_count:
            done = self._first + sum(received)
            raise GliosliceError(f"the board ended the run after {done} of {self.slice_count}")
        self._seconds = self.seconds

    def take(self, part: "MaskVolume", first: int) -> None:
        """Take over the masks of a verified run of some of the slices, which begin at `first`."""
        place = slice(first, first + part.slice_count)
        self._masks[place], self.received[place] = part._masks, part.received
        self.quality[place] = part.quality
        self.milliseconds |= {first + index: ms for index, ms in part.milliseconds.items()}
        if self.received.all():
            self._seconds = self.seconds

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.slice_count:
            raise MessageError(f"the board sent slice {index} of {self.slice_count}")
        if self.received[index] or index in self.failed:
            raise MessageError(f"the board sent slice {index} twice")


@dataclass(frozen=True)
class ProcessedMasks:
    """The masks of a run after `rules`; `result` is None if they were not applied.

    `changed` are the indices of the slices whose mask is another one now.
    """

    masks: MaskVolume
    result: Postprocessed | None
    rules: PostprocessingRules
    changed: tuple[int, ...] = ()

    def report(self) -> dict[str, Any] | None:
        """Return what was changed, for the report of the run; None if there are no rules."""
        if self.result is None:
            return None
        return {
            "summary": self.result.summary(),
            "removed_ml": self.result.removed_voxels / 1000,
            "core_ml": self.result.core_voxels / 1000,
            "rules": asdict(self.rules),
        }
