"""Tumours of the lesion cubes set into slices of other patients, where brain surrounds them.

After CarveMix (Zhang et al., MICCAI 2021): a lesion is carved out along its outline and replaces
what lay there, label and image. A canvas shows the same tumours, but never what is far from them.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d

from glioslice.cases import MODALITIES
from training.dataset import pick
from training.lesions import Lesions, patches
from training.loss import IGNORE

PATCH = 60
"""Pixels along a side, what a cube holds of 1 mm."""

RIM = 5
"""Pixels over which a tumour fades into its new surroundings."""


def transplant(
    images: Tensor, labels: Tensor, lesions: Lesions, share: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Return images (B, slices * 4, H, W) and labels (B, H, W), tumours set into `share` of them.

    One that the edge of its patch cuts off is left out. Slices beside change with the middle one.
    """
    chosen = torch.rand(len(images), generator=generator) < share
    if not (chosen.any() and lesions.whole):
        return images, labels
    images, labels = images.clone(), labels.clone()
    count = int(chosen.sum())
    neighbours = images.shape[1] // len(MODALITIES) // 2
    drawn, outlines = patches(
        lesions, lesions.whole, count, PATCH, generator, images.device, neighbours
    )
    for k, b in enumerate(torch.nonzero(chosen)[:, 0].tolist()):
        _set_in(images[b], labels[b], drawn[k], outlines[k], generator)
    return images, labels


def _set_in(
    image: Tensor, label: Tensor, patch: Tensor, outline: Tensor, generator: Generator
) -> None:
    """Set one tumour into one slice (4, H, W), in place, around a healthy pixel of its brain."""
    tumour = (outline > 0) & (outline != IGNORE)
    edges = (tumour[0], tumour[-1], tumour[:, 0], tumour[:, -1])
    brain = (image != 0).any(dim=0)
    room = torch.nonzero(brain & (label == 0))
    if not tumour.any() or any(edge.any() for edge in edges) or not len(room):
        return
    row, column = room[pick(len(room), generator)].tolist()
    middle = torch.nonzero(tumour).float().mean(0).round().int().tolist()
    top, left = row - middle[0], column - middle[1]
    # The part of the patch that lies on the slice.
    rows = slice(max(0, -top), min(PATCH, label.shape[0] - top))
    columns = slice(max(0, -left), min(PATCH, label.shape[1] - left))
    there = (
        slice(top + rows.start, top + rows.stop),
        slice(left + columns.start, left + columns.stop),
    )
    tumour, outline, patch = tumour[rows, columns], outline[rows, columns], patch[:, rows, columns]
    host, target = image[(slice(None), *there)], label[there]
    inside = brain[there]
    share = avg_pool2d(tumour[None].float(), RIM, 1, RIM // 2)[0].maximum(tumour.float()) * inside
    # As bright as its new surroundings: the healthy tissue around both is brought together.
    ours, theirs = (outline == 0) & (patch != 0).any(dim=0), inside & (target == 0)
    if ours.any() and theirs.any():
        patch = patch + (host[:, theirs].mean(1) - patch[:, ours].mean(1))[:, None, None]
    host.copy_(host + share * (patch - host))
    target[tumour & inside] = outline[tumour & inside]
