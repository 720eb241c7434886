"""The montage shows each region's outline in its colour."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from glioslice.montage import COLOURS, COLUMNS, ZOOM, write_montage
from glioslice.preprocessing import WINDOW


def colours_in(path: Path) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(path))[: 2 * WINDOW[1] * ZOOM]  # without the legend
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
    tile = np.asarray(Image.open(tmp_path / "m.png"))[: WINDOW[1] * ZOOM, : WINDOW[0] * ZOOM]
    y, x = np.nonzero((tile == COLOURS["ET"]).all(axis=-1))
    assert x.mean() > WINDOW[0] * ZOOM / 2
    assert y.mean() < WINDOW[1] * ZOOM / 2
