"""The training loss: batch Dice plus cross-entropy, for each region separately."""

import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from glioslice.labels import CORE, ENHANCING
from training.dataset import IGNORE


class RegionLoss(nn.Module):
    """Loss of logits (B, 3, H, W) against labels (B, H, W); pixels labelled IGNORE do not count.

    Dice is computed over the whole batch, because a slice without tumour has no Dice of its own. It
    has the form that is minimal where the output equals a soft target (Wang et al., "Dice
    Semimetric Losses", MICCAI 2023); for hard labels that is the usual Dice loss.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(batch=True, soft_label=True)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        teachers: Tensor | None = None,
        teacher_weight: float = 0.0,
    ) -> Tensor:
        """Return Dice loss plus cross-entropy, in float32 whatever the type of the logits.

        If `teachers` are given, probabilities (B, 3, H, W), the target is the mean of them and the
        labels, weighted by `teacher_weight`.
        """
        known = (labels != IGNORE)[:, None]
        wt = (labels > 0)[:, None] & known
        target = torch.stack(
            [wt[:, 0], (labels == CORE) | (labels == ENHANCING), labels == ENHANCING], 1
        ).float()
        if teachers is not None:
            target = torch.lerp(target, teachers * known, teacher_weight)
        logits = logits.float()
        loss: Tensor = self.dice(torch.sigmoid(logits) * known, target)
        counted = known.sum() * logits.shape[1]
        entropy = binary_cross_entropy_with_logits(
            logits, target, weight=known.float(), reduction="sum"
        )
        return loss + entropy / counted.clamp(min=1)
