"""The images under the masks on the page: each modality as a grey volume.

The page's voxels are bytes with X fastest. X and Y are reversed so that they grow to the patient's
right and to the front, which NiiVue shows without another rotation.
"""

import threading
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from glioslice.cases import MODALITIES
from glioslice.montage import BRIGHT, DARK
from glioslice.preprocessing import Crop, Images, brain_mask, extract_slices, modality_statistics


@dataclass(frozen=True)
class Scene:
    """The window `crop` of a volume; `images` (4, X, Y, Z) is None if they are on the board.

    `missing` modalities are not shown. `truth` are the expert's labels (X, Y, Z), None where there
    are none.
    """

    crop: Crop
    images: Images | None = None
    missing: tuple[str, ...] = ()
    truth: NDArray[np.uint8] | None = None
    _volumes: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that can be shown."""
        if self.images is None:
            return ()
        return tuple(modality for modality in MODALITIES if modality not in self.missing)

    @property
    def expert(self) -> bytes:
        """The expert's labels as the page's voxels."""
        assert self.truth is not None
        return to_page_voxels(extract_slices(self.truth, self.crop))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Voxels of the page's volume in X, Y, Z."""
        return (*self.crop.window, self.crop.z[1] - self.crop.z[0])

    def volume(self, modality: str) -> bytes:
        """Return a modality as voxels: 0 for air, 1 to 255 for z-scores as in the montage.

        It is computed on first use and kept (4 MB).
        """
        with self._lock:  # two tabs may request it at once
            if modality not in self._volumes:
                self._volumes[modality] = self._grey(MODALITIES.index(modality))
            return self._volumes[modality]

    def _grey(self, place: int) -> bytes:
        assert self.images is not None
        mean, deviation = modality_statistics(self.images, place, self._brain)
        (x, wx), (y, wy) = self.crop.overlap(0), self.crop.overlap(1)
        grey = np.zeros((self.grid[2], *self.crop.window), np.uint8)
        # One slice at a time: memory that a thread has used is rarely returned to the system.
        for out, z in zip(grey, range(*self.crop.z), strict=True):
            scores = (self.images[place, x, y, z] - mean) / (deviation or np.float32(1))
            shades = np.clip((scores - DARK) * (254 / (BRIGHT - DARK)), 0, 254) + 1
            out[wx, wy] = np.where(self._brain[x, y, z], shades, 0)
        return to_page_voxels(grey)

    @cached_property
    def _brain(self) -> NDArray[np.bool_]:
        assert self.images is not None
        return brain_mask(self.images)


def to_page_voxels(slices: NDArray[np.uint8]) -> bytes:
    """Return LPS slices (..., X, Y) as the page's voxels, with X and Y reversed."""
    return np.ascontiguousarray(np.swapaxes(slices[..., ::-1, ::-1], -1, -2)).tobytes()
