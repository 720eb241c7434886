"""Montage of a case: numbered slices through the tumour with WT, TC and ET outlined."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from glioslice.cases import MODALITIES
from glioslice.files import write_bytes
from glioslice.labels import to_regions
from glioslice.preprocessing import (
    Images,
    brain_mask,
    extract_slices,
    find_crop,
    modality_statistics,
)

COLOURS = {"WT": (240, 228, 66), "TC": (213, 94, 0), "ET": (86, 180, 233)}
"""Yellow, vermilion and sky blue of Okabe and Ito's palette, safe for colour-blind readers."""

REGION_TITLES = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}
SHOWN = {"flair": "FLAIR", "t1ce": "T1ce"}
COLUMNS = 5
ZOOM = 2
LEGEND, LEGEND_SIDE = 36, 17
GREY_STEP = 8
"""Grey levels are rounded to multiples of it: finer ones are noise, which PNG cannot compress."""
GREYS = 256 // GREY_STEP
COMPRESSION = 3
"""Of zlib: a fourteenth of the time of the smallest file, which has three quarters of the bytes."""

DARK, BRIGHT = -2.0, 3.5
"""Z-scores shown as black and white; the background is black too."""


def write_montage(path: Path, images: Images, labels: NDArray[np.uint8]) -> None:
    """Write the montage as a PNG file, atomically."""
    write_bytes(path, montage_png(images, labels))


def montage_png(images: Images, labels: NDArray[np.uint8]) -> bytes:
    """Return the montage as the bytes of a PNG file."""
    file = io.BytesIO()
    draw_montage(images, labels).save(file, format="PNG", compress_level=COMPRESSION)
    return file.getvalue()


def draw_montage(images: Images, labels: NDArray[np.uint8]) -> Image.Image:
    """Draw images (4, X, Y, Z) with the outlines of labels (X, Y, Z).

    One row shows FLAIR and one T1ce, both the same numbered slices (see `choose_slices`). Seen from
    below: the patient's left, marked L, is on the right, front on top.
    """
    brain = brain_mask(images)
    crop = find_crop(brain)
    z = choose_slices(labels, crop.z)
    flat = replace(crop, z=(0, COLUMNS))
    masks, inside = extract_slices(labels[..., z], flat), extract_slices(brain[..., z], flat)
    width, height = (side * ZOOM for side in crop.window)
    grey = Image.new("L", (COLUMNS * width, len(SHOWN) * height + LEGEND))
    for row, (modality, title) in enumerate(SHOWN.items()):
        index = MODALITIES.index(modality)
        # Normalise only the chosen slices: the z-scores of all voxels take 140 MB.
        mean, deviation = modality_statistics(images, index, brain)
        shown = np.stack([images[index, :, :, level] for level in z], axis=-1)
        scores = extract_slices(shown, flat) - mean
        scores /= deviation or np.float32(1)
        slices = np.where(inside, scores, np.float32(DARK))
        for column in range(COLUMNS):
            tile = _draw_tile(slices[column])
            _draw_marks(tile, f"slice {z[column] + 1}")
            grey.paste(tile, (column * width, row * height))
        _draw_text(grey, (6, row * height + 4), title)
    places = _draw_legend(grey, len(SHOWN) * height)
    entries = np.asarray(grey) // GREY_STEP  # of a palette: a third of the bytes of colours
    colours = np.zeros_like(entries)
    outlines = np.concatenate([_outlines(mask) for mask in masks], axis=1)
    for row in range(len(SHOWN)):
        colours[row * height : (row + 1) * height] = outlines
    for number, (left, top) in enumerate(places, 1):
        colours[top : top + LEGEND_SIDE, left : left + LEGEND_SIDE] = number
    np.copyto(entries, colours + np.uint8(GREYS - 1), where=colours > 0)
    picture = Image.fromarray(entries, mode="P")
    greys = [(level * 255 // (GREYS - 1),) * 3 for level in range(GREYS)]
    picture.putpalette([value for colour in (*greys, *COLOURS.values()) for value in colour])
    return picture


def choose_slices(labels: NDArray[np.uint8], z: tuple[int, int]) -> NDArray[np.intp]:
    """Return COLUMNS slices by the tumour's area in them, or evenly spaced in `z` without tumour.

    The slices are divided into COLUMNS consecutive groups with about the same volume of tumour. A
    group shows the slice in the middle of its volume, one of them the largest of all instead. So a
    large lesion gets more pictures than a small one. A tumour in fewer slices is shown with its
    nearest neighbours.
    """
    areas = np.count_nonzero(labels[:, :, z[0] : z[1]], axis=(0, 1))
    tumour = np.flatnonzero(areas)
    if not tumour.size or len(areas) < COLUMNS:
        return np.asarray(z[0] + (np.arange(COLUMNS) + 0.5) * len(areas) // COLUMNS, np.intp)
    if tumour.size < COLUMNS:
        distance = np.abs(np.arange(len(areas))[:, None] - tumour).min(axis=1)
        return np.asarray(z[0] + np.sort(distance.argsort(kind="stable")[:COLUMNS]), np.intp)
    ends = np.searchsorted(np.cumsum(areas[tumour]), areas.sum() * np.arange(1, COLUMNS) / COLUMNS)
    # Each group has a slice at least, also where one slice has most of the volume.
    bounds = [0]
    for left, end in zip(range(COLUMNS - 1, 0, -1), ends, strict=True):
        bounds.append(min(max(int(end) + 1, bounds[-1] + 1), tumour.size - left))
    groups = np.split(tumour, bounds[1:])
    largest, chosen = int(areas.argmax()), []
    for group in groups:
        volume = np.cumsum(areas[group])
        middle = int(group[np.searchsorted(volume, volume[-1] / 2)])
        chosen.append(largest if largest in group else middle)
    return np.asarray(z[0] + np.array(chosen), np.intp)


def _draw_tile(grey: NDArray[np.float32]) -> Image.Image:
    """Draw one slice (X, Y), enlarged, in grey."""
    shade = np.clip((grey.T - DARK) / (BRIGHT - DARK), 0, 1) * 255
    size = (grey.shape[0] * ZOOM, grey.shape[1] * ZOOM)
    return Image.fromarray(shade.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def _outlines(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the inner edges of a slice (X, Y), enlarged: 1 of WT, 2 of TC, 3 of ET."""
    edges = np.zeros((labels.shape[1] * ZOOM, labels.shape[0] * ZOOM), np.uint8)
    for number, region in enumerate(to_regions(labels.T), 1):
        edges[_inner_edge(region.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1))] = number
    return edges


def _inner_edge(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of `region` that have a neighbour outside it."""
    padded = np.pad(region, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(region & ~inside)


def _draw_marks(tile: Image.Image, title: str) -> None:
    """Write the slice's title, and R and L where the patient's right and left are."""
    draw, small = ImageDraw.Draw(tile), ImageFont.load_default(15)
    width, height = tile.size
    for text, place, anchor in (
        (title, (width - 5, 4), "ra"),
        ("R", (5, height // 2), "lm"),
        ("L", (width - 5, height // 2), "rm"),
    ):
        draw.text(place, text, 255, small, anchor)


def _draw_legend(picture: Image.Image, top: int) -> list[tuple[int, int]]:
    """Write the names of the regions; return where the square of each colour goes (left, top)."""
    left, places = 8, []
    for region in COLOURS:
        places.append((left, top + 10))
        text = f"{region} {REGION_TITLES[region]}"
        left = _draw_text(picture, (left + LEGEND_SIDE + 7, top + 6), text) + 28
    return places


def _draw_text(picture: Image.Image, position: tuple[int, int], text: str) -> int:
    """Draw white text; return the x coordinate of its end."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(20)
    draw.text(position, text, 255, font)
    return int(draw.textbbox(position, text, font)[2])
