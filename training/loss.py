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

    Dice is taken over the whole batch, because a slice without tumour has no Dice of its own. It is
    of the form that is least where the output equals a target between 0 and 1 (Wang et al., "Dice
    Semimetric Losses", MICCAI 2023), which for labels alone is the usual one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(batch=True, soft_label=True)

    def forward(
        self, logits: Tensor, labels: Tensor, taught: Tensor | None = None, share: float = 0.0
    ) -> Tensor:
        """Return Dice loss plus cross-entropy, in float32 whatever the logits are.

        `share` of the target is `taught` (B, 3, H, W), probabilities, where they are given.
        """
        known = (labels != IGNORE)[:, None]
        wt = (labels > 0)[:, None] & known
        target = torch.stack(
            [wt[:, 0], (labels == CORE) | (labels == ENHANCING), labels == ENHANCING], 1
        ).float()
        if taught is not None:
            target = torch.lerp(target, taught * known, share)
        logits = logits.float()
        loss: Tensor = self.dice(torch.sigmoid(logits) * known, target)
        counted = known.sum() * logits.shape[1]
        entropy = binary_cross_entropy_with_logits(
            logits, target, weight=known.float(), reduction="sum"
        )
        return loss + entropy / counted.clamp(min=1)
