"""Where the masks of a playing board belong."""

import math
import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from glioslice.labels import SCHEMES, LabelScheme
from glioslice.nifti import Space
from glioslice.slices import Crop
from glioslice.wire.layout import MAX_SIDE, check, unpack

MAX_FORM = 5
"""The highest code that NIfTI gives a qform or sform."""


@dataclass(frozen=True)
class Volume:
    """Where a playing board's masks belong: 125 bytes within Start.

    0   u16 x 3   shape X, Y, Z in LPS order (glioslice.slices.Crop.shape)
    6   i16 x 2   origin of the window in X, Y; it may lie outside
    10  u16 x 2   first slice, and the one after the last
    14  f32 x 3   spacing of the source's axes in mm
    26  f64 x 12  the first three rows of the source's affine: voxel to RAS+ mm
    122 u8        label scheme of the source: 0 not known, else 1 + its place in labels.SCHEMES
    123 u8 x 2    NIfTI's codes of the source's qform and sform, 0 to 5
    """

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<3H2h2H3f12d3B")

    shape: tuple[int, int, int]
    origin: tuple[int, int]
    z: tuple[int, int]
    spacing: tuple[float, float, float]
    affine: tuple[float, ...]
    scheme: int
    forms: tuple[int, int]

    def to_bytes(self) -> bytes:
        """Return the volume's part of Start."""
        parts = (
            *self.shape,
            *self.origin,
            *self.z,
            *self.spacing,
            *self.affine,
            self.scheme,
            *self.forms,
        )
        return self.LAYOUT.pack(*parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Volume":
        """Return the volume in `data`; raises MessageError."""
        fields = unpack(cls.LAYOUT, data, "Volume")
        x, y, z, *origin, first, stop = fields[:7]
        spacing, affine = fields[7:10], fields[10:22]
        check(all(1 <= side <= MAX_SIDE for side in (x, y, z)), f"a volume of {x} x {y} x {z}")
        check(first < stop <= z, f"slices {first} to {stop} of a volume with {z}")
        check(all(0 < step < math.inf for step in spacing), f"a spacing of {spacing} mm")
        check(all(math.isfinite(value) for value in affine), "an affine that is not finite")
        check(max(fields[23:]) <= MAX_FORM, f"the form codes {fields[23:]}")
        return cls(
            shape=(x, y, z),
            origin=(origin[0], origin[1]),
            z=(first, stop),
            spacing=(spacing[0], spacing[1], spacing[2]),
            affine=affine,
            scheme=fields[22],
            forms=(fields[23], fields[24]),
        )


def volume_of(space: Space, scheme: LabelScheme, crop: Crop) -> Volume:
    """Return where the masks of a case belong; spacing and affine are those of its files."""
    affine = space.affine
    x, y, z = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist()
    return Volume(
        shape=crop.shape,
        origin=crop.origin,
        z=crop.z,
        spacing=(x, y, z),
        affine=tuple(affine[:3].ravel().tolist()),
        scheme=1 + SCHEMES.index(scheme),
        forms=space.forms,
    )
