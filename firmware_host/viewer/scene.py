"""What the page shows under the masks: the modalities as grey volumes, and where they lie.

The page's voxels are bytes with X fastest, and X and Y turned so that they grow to the patient's
right and to the front: NiiVue then shows them without another turn.
"""

import threading
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from glioslice.cases import MODALITIES
from glioslice.montage import BRIGHT, DARK
from glioslice.preprocessing import Crop, brain_of, scale_of


@dataclass(frozen=True)
class Scene:
    """The window `crop` of the volume; `images` (4, X, Y, Z) is None where the board has them."""

    crop: Crop
    images: NDArray[np.float32] | None = None
    _made: dict[str, bytes] = field(default_factory=dict)
    _making: threading.Lock = field(default_factory=threading.Lock)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that can be shown."""
        return () if self.images is None else MODALITIES

    @property
    def grid(self) -> tuple[int, int, int]:
        """Voxels of the page's volume in X, Y, Z."""
        return (*self.crop.window, self.crop.z[1] - self.crop.z[0])

    def volume(self, modality: str) -> bytes:
        """Return a modality as the page's voxels: 0 air, 1 to 255 for z-scores as in the montage.

        Made when it is first asked for, and kept: 4 MB.
        """
        with self._making:  # two tabs may ask at once
            if modality not in self._made:
                self._made[modality] = self._grey(MODALITIES.index(modality))
            return self._made[modality]

    def _grey(self, place: int) -> bytes:
        assert self.images is not None
        mean, deviation = scale_of(self.images[place], self._brain)
        (x, wx), (y, wy) = self.crop.overlap(0), self.crop.overlap(1)
        grey = np.zeros((self.grid[2], *self.crop.window), np.uint8)
        # A slice at a time: what a thread has once taken of memory, the system rarely gets back.
        for out, z in zip(grey, range(*self.crop.z), strict=True):
            scores = (self.images[place, x, y, z] - mean) / (deviation or np.float32(1))
            shades = np.clip((scores - DARK) * (254 / (BRIGHT - DARK)), 0, 254) + 1
            out[wx, wy] = np.where(self._brain[x, y, z], shades, 0)
        return turned(grey)

    @cached_property
    def _brain(self) -> NDArray[np.bool_]:
        assert self.images is not None
        return brain_of(self.images)


def turned(slices: NDArray[np.uint8]) -> bytes:
    """Return slices (..., X, Y), which grow to the left and the back, as the page's voxels."""
    return np.ascontiguousarray(np.swapaxes(slices[..., ::-1, ::-1], -1, -2)).tobytes()
