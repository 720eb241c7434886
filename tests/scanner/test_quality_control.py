"""Quality control accepts twenty right registrations and refuses ten that are broken on purpose."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks.scanner_studies import Acquisition, limb, random_pose, rigid
from scanner.quality_control import Quality, edge_agreement, judge
from scanner.registration import Registration
from scanner.volumes import Matrix, Volume, displacement, rotation_angle
from tests.scanner.simulated_scanner import FLAIR, T1, T1CE, T2, Head, phantom_head, scan

pytestmark = pytest.mark.slow

WIDE: dict[str, Any] = {"in_plane": 1.5, "size": (140, 150)}
OFF = rigid(np.array([1.0, 0.5, 0.2]), 6.0, np.array([0.3, 1.0, 0.5]), 8.0)


@cache
def made(seed: int) -> Head:
    return phantom_head(seed)


@cache
def fixed(seed: int) -> Acquisition:
    return scan(made(seed), replace(T1CE, thickness=3.0, **WIDE))


def quality(seed: int, moving: Volume, matrix: Matrix) -> Quality:
    """What is measured on a transform from T1ce of the head `seed` to `moving`."""
    volume = fixed(seed).volume
    shift = displacement(matrix, volume.grid.centre)
    found = Registration(matrix, 0.2, 0.5, rotation_angle(matrix), shift)
    return judge(volume, moving, made(seed).brain, made(seed).grid, found)


def right() -> Iterator[tuple[str, Quality]]:
    """Registrations with the errors that the search leaves, a third of a millimetre."""
    rng = np.random.default_rng(0)
    for seed, count in ((0, 4), (1, 3)):
        for index in range(count):
            for protocol in (T1, T2, FLAIR):
                pose = random_pose(rng)
                thickness = (2.0, 4.0, 6.0)[index % 3]
                acquired = scan(
                    made(seed), replace(protocol, thickness=thickness, pose=pose, **WIDE)
                )
                error = rigid(rng.standard_normal(3), 0.3, rng.standard_normal(3), 0.3)
                yield (
                    f"{protocol.modality} of {seed} at {thickness} mm",
                    quality(seed, acquired.volume, np.linalg.inv(pose) @ error),
                )


def wrong() -> Iterator[tuple[str, Quality]]:
    for seed in (0, 1):
        own = {p.modality: scan(made(seed), replace(p, **WIDE)).volume for p in (T2, FLAIR)}
        other = scan(made(1 - seed), replace(FLAIR, **WIDE)).volume
        yield "another patient", quality(seed, other, np.eye(4))
        flair = own["flair"]
        yield "mirrored", quality(seed, Volume(flair.voxels[::-1].copy(), flair.grid), np.eye(4))
        half = flair.voxels.copy()
        half[..., : half.shape[2] // 2] = 0
        yield "half a head", quality(seed, Volume(half, flair.grid), np.eye(4))
        yield "search failed", quality(seed, own["t2"], OFF)
        yield "another body part", quality(seed, Volume(limb(flair), flair.grid), np.eye(4))


def test_twenty_right_registrations_are_accepted() -> None:
    found = list(right())
    assert len(found) >= 20
    assert [(name, q.problems, q) for name, q in found if q.problems] == []


def test_ten_broken_registrations_are_refused() -> None:
    found = list(wrong())
    assert len(found) == 10
    assert [(name, q) for name, q in found if not q.problems] == []


def test_a_search_that_makes_it_worse_is_refused() -> None:
    assert Quality(1.0, 2.0, 0.9, 1.0, 1.0).problems
    assert Quality(1.0, 2.0, 1.2, 60.0, 1.0).problems
    assert Quality(1.0, 2.0, 1.2, 1.0, 120.0).problems
    assert not Quality(1.0, 2.0, 1.2, 1.0, 1.0).problems


def test_edges_agree_with_themselves_whatever_their_sign() -> None:
    noise = np.random.default_rng(0).normal(size=(30, 30, 30)).astype(np.float32)
    inside = np.ones(noise.shape, bool)
    assert edge_agreement(noise, -3 * noise, inside) > 2
    other = np.random.default_rng(1).normal(size=(30, 30, 30)).astype(np.float32)
    assert edge_agreement(noise, other, inside) == pytest.approx(1, abs=0.1)
