"""What training minimises: Dice over the batch plus cross-entropy, each region by itself."""

import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from glioslice.labels import CORE, ENHANCING


class RegionLoss(nn.Module):
    """Logits (B, 3, H, W) and labels (B, H, W) to a scalar.

    Dice is taken over the whole batch, because a slice without tumour has no Dice of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(sigmoid=True, batch=True)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return Dice loss plus cross-entropy, in float32 whatever the logits are."""
        regions = torch.stack(
            [labels > 0, (labels == CORE) | (labels == ENHANCING), labels == ENHANCING], 1
        ).float()
        logits = logits.float()
        loss: Tensor = self.dice(logits, regions)
        return loss + binary_cross_entropy_with_logits(logits, regions)
