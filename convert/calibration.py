"""Which slices of a volume a network is calibrated on: the usual few, or more and better ones.

What a conversion looks at: slices to calibrate on, and cases it has not seen to judge by.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from glioslice.cases import CaseFiles, digest, find_cases, read_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.phantom.head import make_phantom
from glioslice.preprocessing import brain_of, crop_of, cut, z_scores

SLICES_PER_CASE = 8
MORE_PER_CASE = 24

T = TypeVar("T")
Volume = tuple[NDArray[np.float32], NDArray[np.uint8] | None]


def usual(volume: Volume, window: tuple[int, int], clip: float) -> NDArray[np.float32]:
    """Return SLICES_PER_CASE slices spread over the brain, half of them through the tumour.

    They are (n, window X, window Y, 4) z-scores. Raises GliosliceError if there is no brain or it
    is larger than the window.
    """
    slices, tumour = _cut(volume, window, clip)
    with_it, without = np.flatnonzero(tumour), np.flatnonzero(~tumour)
    half = SLICES_PER_CASE // 2
    chosen = [*spread(list(with_it), half)]
    chosen += spread(list(without), SLICES_PER_CASE - len(chosen))
    return np.asarray(slices[sorted(chosen)], np.float32)


def better(volume: Volume, window: tuple[int, int], clip: float) -> NDArray[np.float32]:
    """Return MORE_PER_CASE slices: a half through the tumour, a quarter the brightest, others.

    The extremes that become ranges sit where values are large. The brightest slices have the
    largest sum of fourth powers of z-scores: there a few large values outweigh many middling ones.
    Where there is no tumour, or too few slices, others take the places.
    """
    slices, tumour = _cut(volume, window, clip)
    chosen = set(spread(list(np.flatnonzero(tumour)), MORE_PER_CASE // 2))
    brightness = (slices.astype(np.float64) ** 4).sum(axis=(1, 2, 3))
    brightest = [i for i in np.argsort(-brightness, kind="stable") if i not in chosen]
    chosen |= set(brightest[: MORE_PER_CASE // 4])
    others = [i for i in range(len(slices)) if i not in chosen]
    chosen |= set(spread(others, MORE_PER_CASE - len(chosen)))
    return np.asarray(slices[sorted(chosen)], np.float32)


def spread(items: Sequence[T], most: int) -> tuple[T, ...]:
    """Return at most `most` of the items, evenly spaced."""
    if len(items) <= most:
        return tuple(items)
    return tuple(items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int))


def _cut(
    volume: Volume, window: tuple[int, int], clip: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return all slices that hold brain, and which of them hold tumour."""
    images, labels = volume
    brain = brain_of(images)
    crop = crop_of(brain, window)
    slices = cut(z_scores(images, brain, clip), crop)
    if labels is None:
        return slices, np.zeros(len(slices), bool)
    return slices, cut(labels, crop).any(axis=(1, 2))


MOST_CALIBRATED, MOST_JUDGED = 32, 8
"""Cases. More move the ranges little, and each one judged costs seconds a file."""

MOST_PROBED = 8
"""Slices on which layers are compared, by kernels that take a second each."""

HOLD_OUT_EVERY = 4
"""Where the card does not tell who was trained on: every fourth case is for judging."""

PHANTOMS = range(9000, 9008)
"""Seeds; the tests that a shipped model must pass use low ones. One takes about five seconds."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A case or a phantom.

    `load` returns images (4, X, Y, Z) and labels (X, Y, Z) or None; `slices` are those of it that
    may serve for calibration, (n, window X, window Y, 4) z-scores; `digest` is "" for a phantom.
    """

    name: str
    digest: str
    masked: bool
    slices: NDArray[np.float32]
    load: Callable[[], Volume]


@dataclass(frozen=True)
class Roles:
    """Who is calibrated on and who is judged by; nobody is in both."""

    calibrated: tuple[Subject, ...]
    judged: tuple[Subject, ...]

    @property
    def judged_on(self) -> dict[str, object]:
        """What the figures of a report mean, for `report.json`."""
        phantoms = not any(subject.digest for subject in self.judged)
        return {
            "what": "phantoms" if phantoms else "cases",
            "names": [subject.name for subject in self.judged],
            "masks": all(subject.masked for subject in self.judged),
        }


def cast(data: Path | None, window: tuple[int, int], clip: float, trained: frozenset[str]) -> Roles:
    """Return who plays which role, from the cases of `data` or, without, from phantoms.

    `trained` are the digests of a card: where the data holds such cases, they and no others are
    calibrated on, and all others are for judging. Phantoms judge where no case is left.
    Raises GliosliceError if `data` holds no case or one that is not ready.
    """
    subjects = _phantoms(window, clip) if data is None else _cases(data, window, clip)
    seen = [subject for subject in subjects if subject.digest in trained]
    unseen = [subject for subject in subjects if subject.digest not in trained]
    if not seen or not unseen:
        every = seen or unseen
        unseen = every[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY] or every[1:]
        seen = [subject for subject in every if subject not in unseen]
    judged = [subject for subject in unseen if subject.masked] or unseen
    if not judged:  # a single case
        judged = list(_phantoms(window, clip)[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY])
    return Roles(spread(seen, MOST_CALIBRATED), spread(judged, MOST_JUDGED))


def calibration(subjects: tuple[Subject, ...], clip: float) -> NDArray[np.float32]:
    """Return the slices (N, window X, window Y, 4) whose extremes become the int8 ranges.

    Two voxels of the first slice's corner, outside the head, are set to +-`clip`: the input's range
    is then the clip range and its step the same for every network, whatever the cases are.
    """
    return _with_corner(np.concatenate([subject.slices for subject in subjects]), clip)


def more_calibration(subjects: tuple[Subject, ...], clip: float) -> NDArray[np.float32]:
    """Return more and better chosen slices of the same subjects, as `calibration` does."""
    window = subjects[0].slices.shape[1:3]
    chosen = [
        better(subject.load(), (window[0], window[1]), clip)
        for subject in track(subjects, "choosing more slices")
    ]
    return _with_corner(np.concatenate(chosen), clip)


def probes(subjects: tuple[Subject, ...]) -> NDArray[np.float32]:
    """Return MOST_PROBED slices of those that judge, on which layers are compared."""
    slices = np.concatenate([subject.slices for subject in subjects])
    chosen = spread(list(slices), MOST_PROBED + 2)
    return np.stack(chosen[1:-1] or chosen)  # the ends hold little brain


def _with_corner(slices: NDArray[np.float32], clip: float) -> NDArray[np.float32]:
    slices[0, 0, 0, :2] = -clip, clip
    return slices


@cache
def _cases(data: Path, window: tuple[int, int], clip: float) -> tuple[Subject, ...]:
    found = track(find_cases(data), f"reading the cases of {data}")
    return tuple(_case(files, window, clip) for files in found)


def _case(files: CaseFiles, window: tuple[int, int], clip: float) -> Subject:
    def load() -> Volume:
        case = read_case(files)
        return case.images, case.labels

    case = read_case(files)
    try:
        slices = usual((case.images, case.labels), window, clip)
    except GliosliceError as error:
        raise GliosliceError(f"{files.name}: {error}") from None
    return Subject(files.name, digest(case), case.labels is not None, slices, load)


@cache
def _phantoms(window: tuple[int, int], clip: float) -> tuple[Subject, ...]:
    return tuple(_phantom(seed, window, clip) for seed in track(PHANTOMS, "making phantoms"))


def _phantom(seed: int, window: tuple[int, int], clip: float) -> Subject:
    slices = usual(_head(seed), window, clip)
    return Subject(f"phantom-{seed}", "", True, slices, partial(_head, seed))


@lru_cache(maxsize=2)  # those that judge: the second model of a bare run meets them again
def _head(seed: int) -> Volume:
    # One in four is without tumour, and it is not among those that judge.
    made = make_phantom(seed, tumour=seed % HOLD_OUT_EVERY != 0)
    return made.images, made.labels
