"""A picture of a case: slices through the tumour with WT, TC and ET outlined."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from glioslice.cases import MODALITIES
from glioslice.files import write_bytes
from glioslice.labels import REGIONS, to_regions
from glioslice.preprocessing import brain_of, crop_of, cut, scale_of

COLOURS = {"WT": (240, 228, 66), "TC": (213, 94, 0), "ET": (86, 180, 233)}
"""Yellow, vermilion and sky blue of Okabe and Ito's palette, told apart by colour-blind eyes."""

TITLES = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}
SHOWN = {"flair": "FLAIR", "t1ce": "T1ce"}
COLUMNS = 5
ZOOM = 2
LEGEND = 36
GREY_STEP = 8
"""Finer steps show nothing but noise, and noise is what a PNG cannot pack."""
DARK, BRIGHT = -2.0, 3.5
"""Z-scores shown as black and white; air is black too."""


def write_montage(path: Path, images: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    """Write `montage_png` to a file, whole or not at all."""
    write_bytes(path, montage_png(images, labels))


def montage_png(images: NDArray[np.float32], labels: NDArray[np.uint8]) -> bytes:
    """Return `draw_montage` as the bytes of a PNG."""
    file = io.BytesIO()
    draw_montage(images, labels).save(file, format="PNG", optimize=True)
    return file.getvalue()


def draw_montage(images: NDArray[np.float32], labels: NDArray[np.uint8]) -> Image.Image:
    """Return a picture of images (4, X, Y, Z) with the outlines of labels (X, Y, Z).

    A row for FLAIR and one for T1ce, the same slices in both: spread over the tumour, or over the
    brain where there is none. Seen from below, the patient's left on the right, the front on top.
    """
    brain = brain_of(images)
    crop = crop_of(brain)
    chosen = _spread(labels, crop.z)
    z, flat = chosen + crop.z[0], replace(crop, z=(0, COLUMNS))
    masks, inside = cut(labels[..., z], flat), cut(brain[..., z], flat)
    width, height = (side * ZOOM for side in crop.window)
    picture = Image.new("RGB", (COLUMNS * width, len(SHOWN) * height + LEGEND))
    for row, (modality, title) in enumerate(SHOWN.items()):
        place = MODALITIES.index(modality)
        # Of the chosen slices alone: the scores of all voxels take 140 MB.
        mean, deviation = scale_of(images[place], brain)
        shown = cut(images[place][..., z], flat)
        scores = (shown - mean) / (deviation or np.float32(1))
        slices = np.where(inside, scores, np.float32(DARK))
        for column in range(COLUMNS):
            tile = _tile(slices[column], masks[column])
            picture.paste(tile, (column * width, row * height))
        _write(picture, (6, row * height + 4), title, (255, 255, 255))
    _legend(picture, len(SHOWN) * height)
    return picture


def _spread(labels: NDArray[np.uint8], z: tuple[int, int]) -> NDArray[np.intp]:
    """Return the indices of COLUMNS slices of the crop, inside the tumour's extent."""
    held = np.flatnonzero(labels.any(axis=(0, 1)))
    low, high = (held[0], held[-1]) if held.size else (z[0], z[1] - 1)
    inner = np.rint(np.linspace(low, high, COLUMNS + 2)[1:-1])
    return np.asarray(inner - z[0], np.intp)


def _tile(grey: NDArray[np.float32], labels: NDArray[np.uint8]) -> Image.Image:
    """Return one slice (X, Y), enlarged, with a line along the inner edge of each region."""
    shade = np.clip((grey.T - DARK) / (BRIGHT - DARK), 0, 1) * 255
    size = (grey.shape[0] * ZOOM, grey.shape[1] * ZOOM)
    enlarged = Image.fromarray(shade.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    steps = np.asarray(enlarged) // GREY_STEP * GREY_STEP
    pixels = np.repeat(steps[..., None], 3, axis=2)
    for name, region in zip(REGIONS, to_regions(labels.T), strict=True):
        pixels[_edge(region.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1))] = COLOURS[name]
    return Image.fromarray(pixels)


def _edge(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of `region` that have a neighbour outside it."""
    padded = np.pad(region, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(region & ~inside)


def _legend(picture: Image.Image, top: int) -> None:
    left = 8
    for region, colour in COLOURS.items():
        ImageDraw.Draw(picture).rectangle((left, top + 10, left + 16, top + 26), fill=colour)
        name = f"{region} {TITLES[region]}"
        left = _write(picture, (left + 24, top + 6), name, (255, 255, 255)) + 28


def _write(
    picture: Image.Image, at: tuple[int, int], text: str, colour: tuple[int, int, int]
) -> int:
    """Draw `text`; return where it ends on the x axis."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(20)
    draw.text(at, text, colour, font)
    return int(draw.textbbox(at, text, font)[2])
