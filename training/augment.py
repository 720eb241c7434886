"""Intensity augmentation of z-scored crops; without it 30 patients are memorised within minutes.

`geometry.warp` moves images and labels together. Here only intensities change, as they differ
between scanners. Values stay z-scores: 0 outside the brain, clipped to +-CLIP.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d, interpolate

from glioslice.cases import MODALITIES
from glioslice.preprocessing import CLIP
from training.geometry import BatchRandom, brain_pixels

RAW_ZERO = 4.0
"""Air lies about this many standard deviations below the brain's mean: z + RAW_ZERO resembles a raw
intensity."""

MISSING = {
    "t1 t2": 0.30, "t1": 0.11, "t2": 0.14,
    "flair": 0.17, "flair t1": 0.05, "flair t2": 0.05, "flair t1 t2": 0.06,
    "t1ce": 0.04, "t1 t1ce": 0.02, "t1ce t2": 0.02, "t1 t1ce t2": 0.04,
}  # fmt: skip
"""Subsets of modalities that may be missing, and their shares among crops that lack any.

Each of these leaves T1ce or FLAIR. Many hospitals have T1ce and FLAIR alone. FLAIR is missing more
often than T1ce, because the enhancing tumour cannot be seen without T1ce.
"""


def augment(images: Tensor, missing: float, generator: Generator) -> Tensor:
    """Return an augmented copy of images (B, 4, H, W); a share `missing` lacks modalities."""
    brain = brain_pixels(images)
    images = _blur_and_noise(_change_intensities(images, generator), generator)
    images = torch.where(brain, images, 0.0).clamp(-CLIP, CLIP)
    return _drop_modalities(images, missing, generator)


def _change_intensities(images: Tensor, generator: Generator) -> Tensor:
    """Change contrast, brightness and gamma and add a bias field, for each modality separately."""
    random, (_, channels, height, width) = BatchRandom(images, generator), images.shape
    knots = random.normal(channels, 4, 4) * random.uniform(0, 0.12, channels, 1, 1)
    chosen = random.choose(0.5, channels)  # interpolation is slow, so only half get a bias field
    raw = (images + RAW_ZERO).clamp(min=0)
    field = interpolate(knots[chosen][:, None], (height, width), mode="bicubic", align_corners=True)
    raw[chosen] *= torch.exp(field)[:, 0]
    each = (channels, 1, 1)
    gamma = torch.exp(random.uniform(-0.3, 0.3, *each) * random.bernoulli(0.5, *each))
    # Gamma pivots on the brain's mean: z = 0 stays 0.
    images = RAW_ZERO * (raw / RAW_ZERO).clamp(min=1e-3) ** gamma - RAW_ZERO
    contrast = torch.exp(random.uniform(-0.25, 0.25, *each))
    return images * contrast + random.uniform(-0.3, 0.3, *each)


def _blur_and_noise(images: Tensor, generator: Generator) -> Tensor:
    """Blur some modalities in plane, as motion does, then add noise to some."""
    random, channels = BatchRandom(images, generator), images.shape[1]
    offsets = torch.arange(-3, 4, device=images.device)
    sigma = float(torch.rand((), generator=generator)) * 1.0 + 0.3
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, 7)
    chosen = random.choose(0.2, channels)
    sharp = images[chosen]
    blurred = conv2d(sharp[:, None], kernel, padding=(0, 3))
    images[chosen] = conv2d(blurred, kernel.transpose(2, 3), padding=(3, 0))[:, 0]
    level = random.uniform(0, 0.3, channels, 1, 1) * random.bernoulli(0.3, channels, 1, 1)
    return images + level * random.normal(*images.shape[1:])


def _drop_modalities(images: Tensor, missing: float, generator: Generator) -> Tensor:
    """Set the modalities of one of MISSING to 0 in a share `missing` of the crops."""
    shares = torch.tensor(list(MISSING.values()), device=images.device)
    starts = 1 - missing * (1 - (shares.cumsum(0) - shares) / shares.sum())  # below all: complete
    subset = BatchRandom(images, generator).uniform(0, 1)[:, None] >= starts[None]
    present = torch.ones(len(MISSING) + 1, len(MODALITIES), device=images.device)
    for i, names in enumerate(MISSING, 1):
        present[i, [MODALITIES.index(name) for name in names.split()]] = 0.0
    return images * present[subset.sum(1)][:, :, None, None]
