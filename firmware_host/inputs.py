"""What a run is about: the case that the host streams, or the volume that a board plays."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from glioslice.cases import MODALITIES, Case, find_case, phantom_case, read_case
from glioslice.errors import GliosliceError
from glioslice.labels import BRATS_2023, SCHEMES, LabelScheme
from glioslice.nifti import Space
from glioslice.preprocessing import Crop, brain_of, crop_of, cut, quantise, z_scores
from glioslice.sanity_checks import oddities
from glioslice.wire.messages import BoardHello, MessageError, Volume


@dataclass(frozen=True)
class Source:
    """Where masks belong; `name`, `images` and `truth` stay at the host and may be unknown."""

    name: str | None
    scheme: LabelScheme
    space: Space
    images: NDArray[np.float32] | None = None
    truth: NDArray[np.uint8] | None = None

    @cached_property
    def oddities(self) -> list[str]:
        """Warnings of an input unlike what the networks know; none where images are not here."""
        return [] if self.images is None else oddities(self.images)


def case_at(path: Path | None) -> Case:
    """Return the case at `path`, or the phantom; raises GliosliceError."""
    return phantom_case(0) if path is None else read_case(find_case(path))


def source_of_case(case: Case) -> Source:
    """Return a case that the host holds as a source."""
    return Source(case.name, case.scheme, case.space, case.images, case.labels)


def prepare(images: NDArray[np.float32], hello: BoardHello) -> tuple[Crop, NDArray[np.int8]]:
    """Return the window and the slices (Z', X, Y, channels) as the board's network takes them.

    The same steps as local inference, with the numbers of the board's hello; one modality at a
    time, because a whole float volume takes 140 MB. Raises GliosliceError if there is no brain or
    it does not fit the window, or the network wants neighbouring slices.
    """
    if hello.slices_at_once != 1:
        raise GliosliceError(
            f"the board's network wants {hello.slices_at_once} slices at once, this version sends "
            "single ones; install the newer glioslice here"
        )
    brain = brain_of(images)
    crop = crop_of(brain, hello.window)
    first, stop = crop.z
    slices = np.empty((stop - first, *crop.window, len(hello.modalities)), np.int8)
    for channel, modality in enumerate(hello.modalities):
        place = MODALITIES.index(modality)
        scored = z_scores(images[place : place + 1], brain, hello.clip)[0]
        slices[..., channel] = quantise(cut(scored, crop), hello.scale, hello.zero_point)
    return crop, slices


def source_of_volume(volume: Volume) -> Source:
    """Return a played volume as a source: affine and orientation are those of the board's file.

    Raises MessageError if the numbers describe none.
    """
    affine = np.vstack([np.reshape(volume.affine, (3, 4)), [0.0, 0.0, 0.0, 1.0]])
    if abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise MessageError("the far end sent an affine that is not invertible")
    if volume.scheme > len(SCHEMES):
        raise MessageError(
            f"the far end sent the unknown label scheme {volume.scheme}; both ends need the same "
            "version of glioslice"
        )
    scheme = SCHEMES[volume.scheme - 1] if volume.scheme else BRATS_2023
    x, y, z = (volume.shape[int(axis)] for axis in io_orientation(affine)[:, 0])
    return Source(None, scheme, Space.of_affine((x, y, z), affine, volume.forms))


def crop_of_volume(volume: Volume, window: tuple[int, int]) -> Crop:
    """Return where a played volume's masks lie; raises MessageError for a window outside of it."""
    for start, size, side in zip(volume.origin, window, volume.shape[:2], strict=True):
        if not -size < start < side:
            raise MessageError(f"the far end sent a window at {volume.origin} of {volume.shape}")
    return Crop(volume.shape, volume.origin, volume.z, window)
