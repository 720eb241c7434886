"""The montage shows each region's outline in its colour."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from glioslice.montage import COLOURS, COLUMNS, ZOOM, choose_slices, write_montage
from glioslice.preprocessing import WINDOW


def pixels_of(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def colours_in(path: Path) -> set[tuple[int, ...]]:
    pixels = pixels_of(path)[: 2 * WINDOW[1] * ZOOM]  # without the legend
    return {tuple(int(v) for v in colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}


@pytest.mark.slow
def test_outlines(tmp_path: Path, volumes: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    images, labels = volumes
    write_montage(tmp_path / "m.png", images, labels)
    size = Image.open(tmp_path / "m.png").size
    assert size[0] == COLUMNS * WINDOW[0] * ZOOM
    assert set(COLOURS.values()) <= colours_in(tmp_path / "m.png")
    write_montage(tmp_path / "edema.png", images, np.where(labels > 0, np.uint8(2), labels))
    shown = colours_in(tmp_path / "edema.png")
    assert COLOURS["WT"] in shown
    assert COLOURS["TC"] not in shown
    write_montage(tmp_path / "healthy.png", images, np.zeros_like(labels))
    assert not set(COLOURS.values()) & colours_in(tmp_path / "healthy.png")


def test_front_is_on_top_and_the_patients_left_on_the_right(
    tmp_path: Path, volumes: tuple[NDArray[np.float32], NDArray[np.uint8]]
) -> None:
    images, labels = volumes
    corner = np.zeros_like(labels)
    corner[20:24, 5:9, 5:15] = 3  # to the left (high X), in front (low Y)
    write_montage(tmp_path / "m.png", images, corner)
    tile = pixels_of(tmp_path / "m.png")[: WINDOW[1] * ZOOM, : WINDOW[0] * ZOOM]
    y, x = np.nonzero((tile == COLOURS["ET"]).all(axis=-1))
    assert x.mean() > WINDOW[0] * ZOOM / 2
    assert y.mean() < WINDOW[1] * ZOOM / 2


def with_areas(areas: list[int]) -> NDArray[np.uint8]:
    """Labels (4, 4, Z) with these many pixels of tumour in each slice."""
    labels = np.zeros((16, len(areas)), np.uint8)
    for z, area in enumerate(areas):
        labels[:area, z] = 2
    return labels.reshape(4, 4, -1)


@given(st.lists(st.integers(0, 16), min_size=6, max_size=40))
def test_slices_are_distinct_ordered_and_the_largest_is_among_them(areas: list[int]) -> None:
    chosen = choose_slices(with_areas(areas), (0, len(areas))).tolist()
    assert len(chosen) == COLUMNS
    assert chosen == sorted(set(chosen))
    assert chosen[0] >= 0 and chosen[-1] < len(areas)
    if any(areas):
        assert max(areas[z] for z in chosen) == max(areas)
    if sum(map(bool, areas)) >= COLUMNS:
        assert all(areas[z] for z in chosen)


def test_a_large_lesion_gets_more_pictures_than_a_small_one() -> None:
    areas = [0, 1, 1, 0, 0, 9, 12, 16, 14, 12, 11, 9, 8, 0, 0, 1, 0]
    chosen = choose_slices(with_areas(areas), (0, len(areas))).tolist()
    assert sum(5 <= z <= 12 for z in chosen) >= 4
    assert choose_slices(with_areas([0] * 7 + [3] + [0] * 9), (2, 17)).tolist() == [5, 6, 7, 8, 9]


def test_tiles_are_numbered_and_have_a_right_and_a_left(
    tmp_path: Path, volumes: tuple[NDArray[np.float32], NDArray[np.uint8]]
) -> None:
    images, labels = volumes
    pictures = []
    for shift in (0, 1):  # another number is another picture
        moved = np.roll(labels, shift, axis=2)
        write_montage(tmp_path / "m.png", np.roll(images, shift, axis=3), moved)
        pictures.append(pixels_of(tmp_path / "m.png"))
    width, height = WINDOW[0] * ZOOM, WINDOW[1] * ZOOM
    first, other = (picture[:height, :width] for picture in pictures)
    assert (first[:24, width - 80 :] != other[:24, width - 80 :]).any()
    np.testing.assert_array_equal(first[30:], other[30:])
    middle = slice(height // 2 - 10, height // 2 + 10)
    right, left = first[middle, 4:16].max(axis=2), first[middle, width - 16 : width - 4].max(axis=2)
    assert right.max() == left.max() == 255
    assert (right > 200).sum() > (left > 200).sum()  # R has more ink than L
