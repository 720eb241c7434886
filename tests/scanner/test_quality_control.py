"""Quality control accepts twenty right registrations and refuses those broken on purpose."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.acquisition import Acquisition, limb, random_pose, rigid
from scanner.quality_control import Quality, edge_agreement, judge
from scanner.registration import Registration, make_target, register, within
from scanner.volumes import (
    Grid,
    Matrix,
    Volume,
    displacement,
    isotropic,
    region_on_grid,
    rotation_angle,
)
from tests.scanner.simulated_scanner import FLAIR, T1, T1CE, T2, phantom_head, scan

pytestmark = pytest.mark.slow

WIDE: dict[str, Any] = {"in_plane": 1.5, "size": (140, 150)}
FAR = rigid(np.array([1.0, 0.5, 0.2]), 6.0, np.array([0.3, 1.0, 0.5]), 8.0)
NEAR = rigid(np.array([0.2, 1.0, 0.6]), 3.0, np.array([1.0, 0.4, -0.5]), 3.0)
"""Where a failed search ends: far off, and nearly right."""


@cache
def fixed(seed: int) -> Acquisition:
    return scan(phantom_head(seed), replace(T1CE, thickness=3.0, **WIDE))


@cache
def brain(seed: int) -> tuple[NDArray[np.bool_], Grid]:
    """The brain mask on voxels of 2 mm."""
    head = phantom_head(seed)
    grid = isotropic(head.grid, 2.0)
    return region_on_grid(head.brain, head.grid, grid, np.eye(4)), grid


def quality(seed: int, moving: Volume, matrix: Matrix) -> Quality:
    """What is measured on a transform from T1ce of the head `seed` to `moving`."""
    volume = fixed(seed).volume
    shift = displacement(matrix, volume.grid.centre)
    found = Registration(matrix, 0.2, 0.5, rotation_angle(matrix), shift)
    return judge(volume, moving, *brain(seed), found)


def searched(seed: int, moving: Volume) -> Quality:
    """What is measured on a registration that the search found."""
    volume, (mask, grid) = fixed(seed).volume, brain(seed)
    on_fixed = region_on_grid(mask, grid, volume.grid, np.eye(4))
    return judge(volume, moving, mask, grid, register(make_target(volume, on_fixed), moving))


def right() -> Iterator[tuple[str, Quality]]:
    """Three that the search found, and others with errors as it leaves them, a third of a mm."""
    rng = np.random.default_rng(0)
    for seed, count in ((0, 4), (1, 3)):
        for index in range(count):
            for protocol in (T1, T2, FLAIR):
                pose = random_pose(rng)
                thickness = (2.0, 4.0, 6.0)[index % 3]
                series = replace(protocol, thickness=thickness, pose=pose, **WIDE)
                acquired = scan(phantom_head(seed), series)
                name = f"{protocol.modality} of {seed} at {thickness} mm"
                if seed == 0 and index == 2:
                    yield f"{name}, searched", searched(seed, acquired.volume)
                    continue
                error = rigid(rng.standard_normal(3), 0.3, rng.standard_normal(3), 0.3)
                yield name, quality(seed, acquired.volume, np.linalg.inv(pose) @ error)


def wrong() -> Iterator[tuple[str, Quality]]:
    for seed in (0, 1):
        own = {p.modality: scan(phantom_head(seed), replace(p, **WIDE)).volume for p in (T2, FLAIR)}
        other = scan(phantom_head(1 - seed), replace(FLAIR, **WIDE)).volume
        yield "another patient", quality(seed, other, np.eye(4))
        flair = own["flair"]
        yield "mirrored", quality(seed, Volume(flair.voxels[::-1].copy(), flair.grid), np.eye(4))
        half = flair.voxels.copy()
        half[..., : half.shape[2] // 2] = 0
        yield "half a head", quality(seed, Volume(half, flair.grid), np.eye(4))
        yield "search ended far off", quality(seed, own["t2"], FAR)
        yield "search ended nearly right", quality(seed, own["t2"], NEAR)
        yield "search ended nearly right, FLAIR", quality(seed, flair, np.linalg.inv(NEAR))
        yield "another body part", quality(seed, Volume(limb(flair), flair.grid), np.eye(4))


def test_twenty_right_registrations_are_accepted() -> None:
    found = list(right())
    assert len(found) >= 20
    assert [(name, q.problems, q) for name, q in found if q.problems] == []


def test_broken_registrations_are_refused() -> None:
    found = list(wrong())
    assert len(found) == 14
    assert [(name, q) for name, q in found if not q.problems] == []


@pytest.mark.parametrize("corner", [(0, 0, 0), (20, 9, 14), (38, 28, 18)])
def test_what_is_near_a_region_is_measured_near_it_alone(corner: tuple[int, int, int]) -> None:
    region = np.zeros((40, 30, 20), bool)
    region[corner] = True
    grid = Grid((40, 30, 20), np.diag([-1.0, -1.5, 3.0, 1.0]))
    offset = (np.indices(region.shape).T - corner) * grid.spacing
    assert ((np.linalg.norm(offset, axis=-1) <= 7.0) == within(region, grid, 7.0).T).all()
    assert not within(region & False, grid, 7.0).any()


def test_a_search_ends_at_the_same_place_each_time() -> None:
    volume, (mask, grid) = fixed(0).volume, brain(0)
    on_fixed = region_on_grid(mask, grid, volume.grid, np.eye(4))
    moving = scan(phantom_head(0), replace(FLAIR, pose=FAR, **WIDE)).volume
    target = make_target(volume, on_fixed)
    found = [register(target, moving).matrix.tobytes() for _ in range(2)]
    assert len(set(found)) == 1


def test_a_search_that_makes_it_worse_is_refused() -> None:
    right = Quality(coverage=1.0, edges=2.0, peak=0.1, gain=1.2, angle=1.0, shift=1.0)
    assert not right.problems
    for wrong in ({"gain": 0.9}, {"angle": 60.0}, {"shift": 120.0}, {"peak": -0.02}):
        assert len(replace(right, **wrong).problems) == 1


def test_edges_agree_with_themselves_whatever_their_sign() -> None:
    noise = np.random.default_rng(0).normal(size=(30, 30, 30)).astype(np.float32)
    inside = np.ones(noise.shape, bool)
    assert edge_agreement(noise, -3 * noise, inside) > 2
    other = np.random.default_rng(1).normal(size=(30, 30, 30)).astype(np.float32)
    assert edge_agreement(noise, other, inside) == pytest.approx(1, abs=0.1)
