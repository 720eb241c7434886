"""Whether a sequence lies right on T1ce after registration; a bad one is refused by name.

Five measures, each with a limit from registrations that are known to be right or broken on purpose
(benchmarks/studies, `python benchmarks/scanner_studies.py`):

coverage   share of the brain for which the sequence has a signal: half a head, another body part
edges      agreement of edge directions inside the brain, as a multiple of the agreement after a
           displacement: another patient, a mirrored one, a failed search
peak       loss of mutual information 2 mm and 2 degrees beside the position, the smallest of
           twelve: below 0 if there is a better position, so the search failed
gain       mutual information after the search as a multiple of that before it: a failed search
motion     angle and shift from the position of the headers
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanner.registration import MARGIN, Registration, peak_margin, within
from scanner.volumes import Grid, Volume, isotropic, region_on_grid, resample

MIN_COVERAGE = 0.85
MIN_EDGES = 1.25
MIN_PEAK = 0.01
MIN_GAIN = 0.98
MAX_ANGLE = 40.0
"""Degrees; a patient who lies in a head coil turns by less."""

MAX_SHIFT = 80.0
"""mm between two sequences of one study; their fields of view may be centred differently."""

VOXEL = 2.0
DEPTH = 6.0
"""mm below the brain's outline from which edges count: outlines of two patients agree too."""

DISPLACEMENT = 4
"""Voxels of 2 mm by which a sequence is displaced for comparison."""

SIGNAL = 0.03
"""Share of the image's 99th percentile above which there is a signal."""


@dataclass(frozen=True)
class Quality:
    """What was measured on one registration; see the module's docstring."""

    coverage: float
    edges: float
    peak: float
    gain: float
    angle: float
    shift: float

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words; empty if the registration is accepted."""
        found = []
        if self.coverage < MIN_COVERAGE:
            found.append(f"it covers {self.coverage:.0%} of the brain")
        if self.edges < MIN_EDGES:
            found.append(
                f"its edges do not lie on those of T1ce ({self.edges:.2f}, at least {MIN_EDGES})"
            )
        if self.peak < MIN_PEAK:
            found.append("the search ended beside the best position")
        if self.gain < MIN_GAIN:
            found.append("the search ended at a worse position than that of the headers")
        if self.angle > MAX_ANGLE or self.shift > MAX_SHIFT:
            found.append(f"it would be turned by {self.angle:.0f} degrees, {self.shift:.0f} mm")
        return found


def judge(
    fixed: Volume,
    moving: Volume,
    brain: NDArray[np.bool_],
    brain_grid: Grid,
    registration: Registration,
) -> Quality:
    """Return the measures of a registration of `moving` to `fixed`."""
    grid = isotropic(brain_grid, VOXEL)
    inside = region_on_grid(brain, brain_grid, grid, np.eye(4))
    still = resample(fixed, grid, np.eye(4))
    moved = resample(moving, grid, registration.matrix)
    least = SIGNAL * float(np.percentile(moving.voxels, 99))
    coverage = float((moved[inside] > least).mean()) if inside.any() else 0.0
    deep = ~within(~inside, grid, DEPTH)
    gain = registration.after / registration.before if registration.before > 0 else np.inf
    near = within(inside, grid, MARGIN)
    return Quality(
        coverage=coverage,
        edges=edge_agreement(still, moved, deep),
        peak=peak_margin(Volume(still, grid), moving, near, registration.matrix),
        gain=gain,
        angle=registration.angle,
        shift=registration.shift,
    )


def edge_agreement(
    fixed: NDArray[np.float32], moving: NDArray[np.float32], inside: NDArray[np.bool_]
) -> float:
    """Return how well edges agree, as a multiple of the agreement of displaced images.

    The agreement is the normalised gradient field of E. Haber and J. Modersitzki (MICCAI 2006):
    the squared cosine between the gradients, weighted towards strong ones. 1 means none.
    """
    one, other = (_gradient_field(image, inside) for image in (fixed, moving))
    here = _agreement(one, other, inside)
    displaced = [
        _agreement(one, np.roll(other, sign * DISPLACEMENT, axis=axis + 1), inside)
        for axis in range(3)
        for sign in (-1, 1)
    ]
    return here / max(float(np.mean(displaced)), 1e-6)


def _gradient_field(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the gradients (3, X, Y, Z), each divided by its length and a noise level."""
    gradient = np.stack(np.gradient(image))
    length = np.sqrt((gradient**2).sum(axis=0))
    noise = np.float32(np.median(length[inside])) if inside.any() else np.float32(0)
    return np.asarray(gradient / np.sqrt(length**2 + noise**2 + 1e-12), np.float32)


def _agreement(
    one: NDArray[np.float32], other: NDArray[np.float32], inside: NDArray[np.bool_]
) -> float:
    return float(((one * other).sum(axis=0)[inside] ** 2).mean()) if inside.any() else 0.0
