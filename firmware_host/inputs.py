"""The case of a run: cut into slices on the host, or described by a board that plays it."""

import argparse
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioslice.case_options import chosen_source, read_source
from glioslice.cases import MODALITIES, Case, CaseFiles, phantom_case
from glioslice.dataset_layouts import missing_warnings
from glioslice.errors import GliosliceError
from glioslice.labels import BRATS_2023, SCHEMES, LabelScheme
from glioslice.nifti import Space
from glioslice.preprocessing import Crop, Images, iterate_slices, quantize
from glioslice.sanity_checks import find_warnings
from glioslice.wire.messages import BoardHello, MessageError, VolumeGeometry

PHANTOM = "phantom-0"
"""The name of the case that is streamed if none is given."""


@dataclass(frozen=True)
class StreamedCase:
    """A case as the host knows it.

    Of a case that the board plays, `name`, `images` and `truth` are None: they stay on the board.
    `missing` modalities are 0 in the images, and the network saw 0 for them. `notes` are the
    warnings of reading (`glioslice.cases.Case`).
    """

    name: str | None
    scheme: LabelScheme
    space: Space
    images: Images | None = None
    truth: NDArray[np.uint8] | None = None
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def warnings(self) -> list[str]:
        """What reading assumed, what looks unusual, and what is missing."""
        if self.images is None:
            return missing_warnings(self.missing)
        return [*self.notes, *find_warnings(self.images, self.missing)]


def given_source(arguments: argparse.Namespace) -> CaseFiles | Path | None:
    """Return the case that the options of `stream` name, None for the phantom.

    Raises GliosliceError if they contradict each other.
    """
    source = chosen_source(arguments.case, arguments)
    if isinstance(source, CaseFiles) and arguments.play:
        raise GliosliceError("--play needs CASE, which the board reads, not files by modality")
    return source


def load_case(arguments: argparse.Namespace) -> Case:
    """Return the case that the options name, or the phantom; raises GliosliceError."""
    source = given_source(arguments)
    return phantom_case(0, arguments.missing) if source is None else read_source(source, arguments)


def hosted_case(case: Case) -> StreamedCase:
    """Return a case that was read on the host."""
    return StreamedCase(
        case.name, case.scheme, case.space, case.volumes, case.labels, case.missing, case.warnings
    )


def played_case(volume: VolumeGeometry, missing: tuple[str, ...] = ()) -> StreamedCase:
    """Return a case that the board plays, in the space and orientation of the board's file.

    Raises MessageError if the message describes no valid volume.
    """
    affine = np.vstack([np.reshape(volume.affine, (3, 4)), [0.0, 0.0, 0.0, 1.0]])
    if abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise MessageError("the board sent an affine that is not invertible")
    if volume.scheme > len(SCHEMES):
        raise MessageError(
            f"the board sent the unknown label scheme {volume.scheme}; both ends need the same "
            "version of glioslice"
        )
    scheme = SCHEMES[volume.scheme - 1] if volume.scheme else BRATS_2023
    space = Space.of_volume(volume.shape, affine, volume.forms)
    return StreamedCase(None, scheme, space, missing=missing)


def played_crop(volume: VolumeGeometry, window: tuple[int, int]) -> Crop:
    """Return where a played volume's masks lie; raises MessageError for a window outside it."""
    for start, size, side in zip(volume.origin, window, volume.shape[:2], strict=True):
        if not -size < start < side:
            raise MessageError(f"the board sent a window at {volume.origin} of {volume.shape}")
    return Crop(volume.shape, volume.origin, volume.z, window)


def absent_channels(hello: BoardHello, missing: Collection[str]) -> int:
    """Return the bits of the board's channels whose modality is missing, as Start carries them.

    Raises GliosliceError if the network sees none of the modalities that are left.
    """
    absent = sum(1 << i for i, modality in enumerate(hello.modalities) if modality in missing)
    if absent == (1 << len(hello.modalities)) - 1:
        raise GliosliceError(
            f"the board's network takes {', '.join(hello.modalities)}, and the case lacks them all"
        )
    return absent


def missing_modalities(hello: BoardHello, absent: int) -> tuple[str, ...]:
    """Return the modalities whose bits are set in a Start's `absent`; raises MessageError."""
    if absent >> len(hello.modalities):
        raise MessageError(f"the board sent absent channels {absent:04b} that it does not have")
    return tuple(m for channel, m in enumerate(hello.modalities) if absent >> channel & 1)


def quantize_slices(
    images: Images, hello: BoardHello, missing: Collection[str] = ()
) -> tuple[Crop, NDArray[np.int8]]:
    """Return the window and the quantized slices (Z', X, Y, channels) that the network takes.

    `missing` modalities are left out: they do not cross the link (see `absent_channels`). The steps
    and parameters are those of local inference. Raises GliosliceError if there is no brain, if it
    does not fit the window, or if the network takes neighbouring slices.
    """
    if hello.slices_at_once != 1:
        raise GliosliceError(
            f"the board's network takes {hello.slices_at_once} slices at once, but this version "
            "sends single ones; install the newer glioslice on this host"
        )
    crop, cut = iterate_slices(images, hello.window, hello.clip)
    channels = [MODALITIES.index(m) for m in hello.modalities if m not in missing]
    slices = np.empty((crop.z[1] - crop.z[0], *crop.window, len(channels)), np.int8)
    for out, z_scores in zip(slices, cut, strict=True):
        out[...] = quantize(z_scores[..., channels], hello.scale, hello.zero_point)
    return crop, slices
