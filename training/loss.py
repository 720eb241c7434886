"""What training minimises: Dice over the batch plus cross-entropy, each region by itself."""

import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from glioslice.labels import CORE, ENHANCING

IGNORE = 255
"""The label of a pixel of which nobody knows what it is."""


class RegionLoss(nn.Module):
    """Logits (B, 3, H, W) and labels (B, H, W) to a scalar; pixels of label IGNORE do not count.

    Dice is taken over the whole batch, because a slice without tumour has no Dice of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(batch=True)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return Dice loss plus cross-entropy, in float32 whatever the logits are."""
        known = (labels != IGNORE)[:, None]
        wt = (labels > 0)[:, None] & known
        regions = torch.stack(
            [wt[:, 0], (labels == CORE) | (labels == ENHANCING), labels == ENHANCING], 1
        ).float()
        logits = logits.float()
        loss: Tensor = self.dice(torch.sigmoid(logits) * known, regions)
        counted = known.sum() * logits.shape[1]
        entropy = binary_cross_entropy_with_logits(
            logits, regions, weight=known.float(), reduction="sum"
        )
        return loss + entropy / counted.clamp(min=1)
