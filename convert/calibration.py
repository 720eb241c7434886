"""The cases of a conversion: which calibrate and which evaluate it, and which of their slices.

Without cases, phantoms take both roles. No case is in both.
"""

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
LabelledImages = tuple[NDArray[np.float32], NDArray[np.uint8] | None]
"""Images (4, X, Y, Z) and labels (X, Y, Z)."""


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
