"""The float checkpoint behind the engine's interface, to be judged on the same path."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from glioslice.card import Card
from glioslice.labels import REGIONS
from training.network import Network


@dataclass(frozen=True)
class TorchNetwork:
    """A network with its card; the card's thresholds are not folded into its last bias."""

    network: Network
    card: Card

    @torch.no_grad()
    def run(self, z_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return WT, TC, ET (3, X, Y) of a slice (X, Y, 4): sigmoid above the card's thresholds."""
        thresholds = self.card.content["output"]["thresholds"]
        batch = torch.from_numpy(z_scores).permute(2, 0, 1)[None]
        chances = torch.sigmoid(self.network(batch))[0].numpy()
        return np.stack([chances[i] > thresholds[region] for i, region in enumerate(REGIONS)])
