"""The four volumes of a case in the type in which their files store them.

BraTS publishes 16-bit integers, and many tools write bytes with a scale in the header. As float32
four volumes take 143 MB, as bytes 36 MB: they become float32 only where they are looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, eq=False)
class StoredVolumes:
    """Volumes (4, X, Y, Z) as they are stored, and the factor by which each is multiplied.

    Indexing gives what indexing the float32 array of all voxels would give; `numpy.asarray` gives
    that array.
    """

    stored: NDArray[Any]
    scales: tuple[np.float32, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all volumes: (4, X, Y, Z)."""
        return self.stored.shape

    def __len__(self) -> int:
        """Return the number of volumes."""
        return len(self.stored)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Iterate over the volumes (X, Y, Z)."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Return a part; the first index is that of volumes, or an ellipsis."""
        part = np.asarray(self.stored[key], np.float32)
        scales = np.asarray(self.scales, np.float32)
        if (scales == 1).all():
            return part
        which = key[0] if isinstance(key, tuple) else key
        if which is Ellipsis:
            which = slice(None)
        chosen = scales[which]
        return part * chosen.reshape(chosen.shape + (1,) * (part.ndim - chosen.ndim))

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all voxels (numpy's protocol)."""
        return self[:].astype(dtype or np.float32, copy=False)


Images = NDArray[np.float32] | StoredVolumes
"""Four volumes (4, X, Y, Z), in memory as float32 or as they are stored."""


def stored_voxels(images: Images) -> NDArray[Any]:
    """Return the voxels without their scale: for comparisons with 0."""
    return images.stored if isinstance(images, StoredVolumes) else images


def voxels_in(images: Images, index: int, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the voxels of one volume in `mask` (X, Y, Z), in the order of memory."""
    volume = stored_voxels(images)[index]
    if abs(volume.strides[0]) < abs(volume.strides[-1]):  # numpy gathers along the last axis
        volume, mask = volume.T, mask.T
    voxels = np.asarray(volume[mask], np.float32)
    return voxels * images.scales[index] if isinstance(images, StoredVolumes) else voxels
