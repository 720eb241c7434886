"""What calibrates and what evaluates a conversion: cases and their slices, or sample images.

Without cases, phantoms take both roles. No case is in both.

An external network has sample images. A `.npy` file holds images (N, C, H, W) as the network takes
them. An `.npz` file holds them as `images` and may hold `masks` (N, K, H', W'), the ground truth of
the network's outputs. The first three quarters calibrate and the last quarter evaluates: neighbours
often come from one patient, and interleaved they would be on both sides.
"""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from glioslice.cases import CaseFiles, case_digest, find_cases, read_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.phantom.head import make_phantom
from glioslice.preprocessing import brain_mask, extract_slices, find_crop, z_scores

USUAL_PER_CASE, EXTENDED_PER_CASE = 8, 24
"""Slices of a case that calibrate: in the first attempt at int8, and in all others."""

MAX_CALIBRATION, MAX_EVALUATION = 32, 8
"""Cases. More hardly change the ranges, and evaluating one costs seconds per file."""

MAX_PROBES = 8
"""Slices on which layers are compared, by kernels that take a second each."""

HOLD_OUT_EVERY = 4
"""Where the card does not list the training cases, every fourth case evaluates."""

PHANTOMS = range(9000, 9008)
"""Seeds; the tests that a shipped model must pass use low ones. One takes about five seconds."""

T = TypeVar("T")
Floats = NDArray[np.float32]
InputShape = tuple[int, int, int]
"""Channels, rows, columns."""

LabelledImages = tuple[NDArray[np.float32], NDArray[np.uint8] | None]
"""Images (4, X, Y, Z) and labels (X, Y, Z)."""

MIN_IMAGES = 8
"""Six calibrate, two evaluate."""

MAX_USUAL, MAX_EXTENDED, MAX_EVALUATED = 256, 768, 64
"""Images of the first attempt, of later ones and for evaluation; 32 cases give as many slices."""

SPLIT = "the first three quarters calibrate, the last quarter judges"
"""The split, as `report.json` describes it."""


def usual_choice(
    volume: LabelledImages, window: tuple[int, int], clip: float
) -> NDArray[np.float32]:
    """Return USUAL_PER_CASE slices spread over the brain, half of them through the tumour.

    They are (n, window X, window Y, 4) z-scores. Raises GliosliceError if there is no brain or it
    is larger than the window.
    """
    slices, tumour = _brain_slices(volume, window, clip)
    chosen = [*spread(list(np.flatnonzero(tumour)), USUAL_PER_CASE // 2)]
    chosen += spread(list(np.flatnonzero(~tumour)), USUAL_PER_CASE - len(chosen))
    return np.asarray(slices[sorted(chosen)], np.float32)


def extended_choice(
    volume: LabelledImages, window: tuple[int, int], clip: float
) -> NDArray[np.float32]:
    """Return EXTENDED_PER_CASE slices: half through the tumour, a quarter the brightest, others.

    The extremes that become ranges are where values are large. The brightest slices are those with
    the largest sum of fourth powers of z-scores, in which a few large values outweigh many medium
    ones. Where there is no tumour, or too few slices through it, others take their places.
    """
    slices, tumour = _brain_slices(volume, window, clip)
    chosen = set(spread(list(np.flatnonzero(tumour)), EXTENDED_PER_CASE // 2))
    brightness = (slices.astype(np.float64) ** 4).sum(axis=(1, 2, 3))
    brightest = [i for i in np.argsort(-brightness, kind="stable") if i not in chosen]
    chosen |= set(brightest[: EXTENDED_PER_CASE // 4])
    others = [i for i in range(len(slices)) if i not in chosen]
    chosen |= set(spread(others, EXTENDED_PER_CASE - len(chosen)))
    return np.asarray(slices[sorted(chosen)], np.float32)


def spread(items: Sequence[T], limit: int) -> tuple[T, ...]:
    """Return at most `limit` of the items, evenly spaced."""
    if len(items) <= limit:
        return tuple(items)
    return tuple(items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int))


def _brain_slices(
    volume: LabelledImages, window: tuple[int, int], clip: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return all slices through the brain, and which of them contain tumour."""
    images, labels = volume
    brain = brain_mask(images)
    crop = find_crop(brain, window)
    slices = extract_slices(z_scores(images, brain, clip), crop)
    if labels is None:
        return slices, np.zeros(len(slices), bool)
    return slices, extract_slices(labels, crop).any(axis=(1, 2))


@dataclass(frozen=True, eq=False)
class ConversionCase:
    """A case or a phantom.

    `load` returns its volume; `slices` are its usual choice for calibration, (n, window X,
    window Y, 4) z-scores; `masked` is whether it has a ground truth; `digest` is "" for a
    phantom.
    """

    name: str
    digest: str
    masked: bool
    slices: NDArray[np.float32]
    load: Callable[[], LabelledImages]


@dataclass(frozen=True)
class Roles:
    """The cases that calibrate and those that evaluate; nobody is in both."""

    calibration: tuple[ConversionCase, ...]
    evaluation: tuple[ConversionCase, ...]

    def describe_evaluation(self) -> dict[str, Any]:
        """Return what the scores were measured on, for `report.json`."""
        phantoms = not any(case.digest for case in self.evaluation)
        return {
            "what": "phantoms" if phantoms else "cases",
            "names": [case.name for case in self.evaluation],
            "masks": all(case.masked for case in self.evaluation),
        }


def assign_roles(
    data: Path | None, window: tuple[int, int], clip: float, trained_on: frozenset[str]
) -> Roles:
    """Return which of the cases of `data` (None: of the phantoms) play which role.

    `trained_on` holds the digests of a card's training cases. If `data` has some of them and some
    others, the training cases calibrate and all others evaluate. Phantoms evaluate where no case
    is left. Raises GliosliceError if `data` holds no case or one that is not ready.
    """
    cases = _phantoms(window, clip) if data is None else _cases(data, window, clip)
    seen = [case for case in cases if case.digest in trained_on]
    unseen = [case for case in cases if case.digest not in trained_on]
    if not seen or not unseen:
        every = seen or unseen
        unseen = every[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY] or every[1:]
        seen = [case for case in every if case not in unseen]
    evaluation = [case for case in unseen if case.masked] or unseen
    if not evaluation:  # a single case
        evaluation = list(_phantoms(window, clip)[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY])
    return Roles(spread(seen, MAX_CALIBRATION), spread(evaluation, MAX_EVALUATION))


def calibration_slices(cases: tuple[ConversionCase, ...], clip: float) -> NDArray[np.float32]:
    """Return the slices (N, window X, window Y, 4) whose extremes become the int8 ranges.

    Two voxels of the first slice's corner, outside the head, are set to +-`clip`: the input's range
    is then the clip range and its step the same for every network, whatever the cases are.
    """
    return _with_corner(np.concatenate([case.slices for case in cases]), clip)


def extended_slices(cases: tuple[ConversionCase, ...], clip: float) -> NDArray[np.float32]:
    """Return the extended choice of slices of the same cases, as `calibration_slices` does."""
    window = cases[0].slices.shape[1:3]
    chosen = [
        extended_choice(case.load(), (window[0], window[1]), clip)
        for case in track(cases, "choosing more slices")
    ]
    return _with_corner(np.concatenate(chosen), clip)


def probe_slices(cases: tuple[ConversionCase, ...]) -> NDArray[np.float32]:
    """Return MAX_PROBES slices of the cases that evaluate, on which layers are compared."""
    slices = np.concatenate([case.slices for case in cases])
    chosen = spread(list(slices), MAX_PROBES + 2)
    return np.stack(chosen[1:-1] or chosen)  # the ends hold little brain


def _with_corner(slices: NDArray[np.float32], clip: float) -> NDArray[np.float32]:
    slices[0, 0, 0, :2] = -clip, clip
    return slices


@cache
def _cases(data: Path, window: tuple[int, int], clip: float) -> tuple[ConversionCase, ...]:
    found = track(find_cases(data), f"reading the cases of {data}")
    return tuple(_case(files, window, clip) for files in found)


def _case(files: CaseFiles, window: tuple[int, int], clip: float) -> ConversionCase:
    def load() -> LabelledImages:
        case = read_case(files)
        return case.images, case.labels

    case = read_case(files)
    try:
        slices = usual_choice((case.images, case.labels), window, clip)
    except GliosliceError as error:
        raise GliosliceError(f"{files.name}: {error}") from None
    return ConversionCase(files.name, case_digest(case), case.labels is not None, slices, load)


@cache
def _phantoms(window: tuple[int, int], clip: float) -> tuple[ConversionCase, ...]:
    return tuple(_phantom(seed, window, clip) for seed in track(PHANTOMS, "making phantoms"))


def _phantom(seed: int, window: tuple[int, int], clip: float) -> ConversionCase:
    slices = usual_choice(_head(seed), window, clip)
    return ConversionCase(f"phantom-{seed}", "", True, slices, partial(_head, seed))


@lru_cache(maxsize=2)  # the two that evaluate: converting both shipped models needs them twice
def _head(seed: int) -> LabelledImages:
    # One in four has no tumour; it is not one of those that evaluate.
    phantom = make_phantom(seed, tumour=seed % HOLD_OUT_EVERY != 0)
    return phantom.images, phantom.labels


@dataclass(frozen=True, eq=False)
class SampleImages:
    """Images (N, C, H, W) and their masks (N, K, H', W'), None if there are none."""

    name: str
    images: Floats
    masks: NDArray[np.bool_] | None

    @property
    def shape(self) -> InputShape:
        """Channels, rows and columns of an image."""
        _, channels, rows, columns = self.images.shape
        return channels, rows, columns

    @property
    def calibration(self) -> Floats:
        """The images of the first three quarters, (N, H, W, C)."""
        return _channels_last(self.images[: self._split])

    @property
    def evaluation_indices(self) -> NDArray[np.intp]:
        """The indices of the images that evaluate: of the last quarter, evenly spaced."""
        return np.array(spread(range(self._split, len(self.images)), MAX_EVALUATED))

    @property
    def evaluation(self) -> Floats:
        """The images that evaluate, (N, H, W, C)."""
        return _channels_last(self.images[self.evaluation_indices])

    @property
    def _split(self) -> int:
        return 3 * len(self.images) // 4


def read_images(path: Path) -> SampleImages:
    """Return the images, and masks if there are any, of a `.npy` or `.npz` file.

    Raises GliosliceError if it is not such a file, or as `check_images` does.
    """
    try:
        found = np.load(path, allow_pickle=False)
        arrays = {"images": found} if isinstance(found, np.ndarray) else dict(found)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise GliosliceError(f"{path}: not a .npy or .npz file of numbers ({error})") from None
    if "images" not in arrays:
        raise GliosliceError(f"{path}: holds {', '.join(arrays) or 'nothing'}, but no 'images'")
    return check_images(arrays["images"], arrays.get("masks"), str(path))


def check_images(images: NDArray[Any], masks: NDArray[Any] | None, name: str) -> SampleImages:
    """Return images (N, C, H, W) and masks (N, K, H', W') once they are known to be usable.

    `name` is what they are called in messages and, without its folder, in the report. Raises
    GliosliceError if there are too few images, they are not finite or not of four dimensions, or
    the masks are not binary or of another number.
    """
    if images.ndim != 4 or images.dtype.kind != "f":
        raise GliosliceError(
            f"{name}: images are {images.dtype} of {images.shape}; expected float32 of (number, "
            "channels, rows, columns), normalised as for training"
        )
    if len(images) < MIN_IMAGES:
        raise GliosliceError(
            f"{name}: holds {len(images)} images; at least {MIN_IMAGES} are needed"
        )
    if not np.isfinite(images).all():
        raise GliosliceError(f"{name}: holds NaN or infinite values; leave those images out")
    if masks is not None:
        if masks.ndim != 4 or len(masks) != len(images) or not np.isin(masks, (0, 1)).all():
            raise GliosliceError(
                f"{name}: masks are {masks.dtype} of {masks.shape}; expected {len(images)} of "
                "(outputs, rows, columns) that hold 0 and 1"
            )
        masks = masks.astype(bool)
    return SampleImages(Path(name).name, images.astype(np.float32), masks)


def usual_images(images: Floats) -> Floats:
    """Return a third of the images (N, H, W, C), evenly spaced, but at least MIN_IMAGES."""
    return np.stack(spread(list(images), min(MAX_USUAL, max(MIN_IMAGES, len(images) // 3))))


def extended_images(images: Floats) -> Floats:
    """Return up to MAX_EXTENDED of the images (N, H, W, C), half of them the brightest.

    Brightness is the sum of fourth powers, as in `convert.calibration.extended_choice`.
    """
    if len(images) <= MAX_EXTENDED:
        return images
    brightness = (images.astype(np.float64) ** 4).sum(axis=(1, 2, 3))
    chosen = set(np.argsort(-brightness, kind="stable")[: MAX_EXTENDED // 2].tolist())
    others = [i for i in range(len(images)) if i not in chosen]
    chosen |= set(spread(others, MAX_EXTENDED - len(chosen)))
    return images[sorted(chosen)]


def _channels_last(images: Floats) -> Floats:
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))
