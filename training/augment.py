"""Strong augmentation: without it 30 patients are learnt by heart within minutes (FACTS).

`warp` has moved images and labels together; here the images alone change, as scanners differ.
Z-scores in, z-scores out: 0 outside the brain, cut to +-CLIP.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from glioslice.cases import MODALITIES
from glioslice.slices import CLIP
from training.loss import IGNORE
from training.warp import Draw, brain_in

FAINTEST = 0.3

RAW_ZERO = 4.0
"""Air lies about so many deviations below the brain's mean: z + RAW_ZERO is like raw intensity."""


CURVE, CURVES = 10, 0.5
"""Straight pieces of a grey curve from -CLIP to CLIP, and the deviation of their log slopes."""


def augment(images: Tensor, generator: Generator, restyled: float = 0.0) -> Tensor:
    """Return a changed copy of images (B, slices * 4, H, W), `restyled` the share of new curves.

    The slices of one scan change alike, but for their noise.
    """
    brain = brain_in(images)[:, None]
    images = images.unflatten(1, (-1, len(MODALITIES))).transpose(1, 2)  # (B, 4, slices, H, W)
    images = _intensities(restyle(images, restyled, generator), generator)
    images = _blur_and_noise(images, generator)
    images = torch.where(brain, images, 0.0).clamp(-CLIP, CLIP)
    return _drop_modalities(images, generator).transpose(1, 2).flatten(1, 2)


def fade(images: Tensor, labels: Tensor, share: float, generator: Generator) -> Tensor:
    """Return images (B, slices * 4, H, W) with tumours of less contrast in `share` of them.

    Each modality's difference to the crop's healthy brain is cut to a part of it, from FAINTEST to
    the whole, within the tumour of `labels` (B, H, W) and fading over a few pixels of its border.
    """
    if not share:
        return images
    draw, slices = Draw(images, generator), images.shape[1] // len(MODALITIES)
    kept = draw.uniform(FAINTEST, 1, len(MODALITIES), 1, 1).repeat(1, slices, 1, 1)
    kept = torch.where(draw.chance(share, 1, 1, 1), kept, 1.0)
    tumour = ((labels > 0) & (labels != IGNORE))[:, None]
    healthy = (images != 0).any(dim=1, keepdim=True) & (labels == 0)[:, None]
    pixels = healthy.sum((2, 3), keepdim=True).clamp(min=1)
    normal = (images * healthy).sum((2, 3), keepdim=True) / pixels
    within = avg_pool2d(tumour.float(), 7, stride=1, padding=3)
    return images + within * (kept - 1) * (images - normal) * (images != 0)


def restyle(images: Tensor, share: float, generator: Generator) -> Tensor:
    """Return images (B, 4, slices, H, W), `share` of the modalities with another grey curve.

    A scanner orders tissues as the weighting does, but spaces them in its own way: the curve rises,
    keeps 0 and, over the two deviations on either side of it, has a mean slope of 1.
    """
    if not share:
        return images
    draw, channels = Draw(images, generator), images.shape[1]
    slopes = torch.exp(CURVES * draw.normal(channels, CURVE))
    slopes = torch.where(draw.chance(share, channels, 1), slopes, 1.0)
    step, zero = 2 * CLIP / CURVE, CURVE // 2
    near = round(2 / step)
    slopes = slopes / slopes[..., zero - near : zero + near].mean(-1, keepdim=True)
    heights = torch.cat([torch.zeros_like(slopes[..., :1]), slopes.cumsum(-1)], -1) * step
    heights = heights - heights[..., zero : zero + 1]
    place = (images.flatten(2).clamp(-CLIP, CLIP) + CLIP) / step
    piece = place.floor().long().clamp(max=CURVE - 1)
    risen = (place - piece) * step * slopes.gather(-1, piece)
    return (heights.gather(-1, piece) + risen).reshape(images.shape)


def _intensities(images: Tensor, generator: Generator) -> Tensor:
    """Change contrast, brightness, gamma and add a bias field, each modality by itself."""
    draw, (_, channels, _, height, width) = Draw(images, generator), images.shape
    knots = draw.normal(channels, 4, 4) * draw.uniform(0, 0.12, channels, 1, 1)
    chosen = draw.some(0.5, channels)  # resampling is slow: only where it is wanted
    raw = (images + RAW_ZERO).clamp(min=0)
    field = interpolate(knots[chosen][:, None], (height, width), mode="bicubic", align_corners=True)
    raw[chosen] *= torch.exp(field)
    each = (channels, 1, 1, 1)
    gamma = torch.exp(draw.uniform(-0.3, 0.3, *each) * draw.chance(0.5, *each))
    # Gamma about the brain's mean: z = 0 stays where it is.
    images = RAW_ZERO * (raw / RAW_ZERO).clamp(min=1e-3) ** gamma - RAW_ZERO
    contrast = torch.exp(draw.uniform(-0.25, 0.25, *each))
    return images * contrast + draw.uniform(-0.3, 0.3, *each)


def _blur_and_noise(images: Tensor, generator: Generator) -> Tensor:
    """Blur some modalities (thick slices, motion), then add noise to some."""
    draw, channels = Draw(images, generator), images.shape[1]
    steps = torch.arange(-3, 4, device=images.device)
    sigma = float(torch.rand((), generator=generator)) * 1.0 + 0.3
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, 7)
    chosen = draw.some(0.2, channels)
    sharp = images[chosen]
    blurred = conv2d(sharp.flatten(0, 1)[:, None], kernel, padding=(0, 3))
    blurred = conv2d(blurred, kernel.transpose(2, 3), padding=(3, 0))
    images[chosen] = blurred.reshape(sharp.shape)
    level = draw.uniform(0, 0.3, channels, 1, 1, 1) * draw.chance(0.3, channels, 1, 1, 1)
    return images + level * draw.normal(*images.shape[1:])


def _drop_modalities(images: Tensor, generator: Generator) -> Tensor:
    """Set one modality of every tenth slice to 0, as a scan that is missing would be."""
    draw, channels = Draw(images, generator), images.shape[1]
    which = draw.uniform(0, channels).long()
    gone = draw.chance(0.1)[:, None] & (
        torch.arange(channels, device=images.device)[None] == which[:, None]
    )
    return images * ~gone[:, :, None, None, None]
