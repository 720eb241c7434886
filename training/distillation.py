"""Several trained networks as one: the mean of their probabilities, to judge by or to learn from.

Teachers (Hinton et al., 2015) see the very same augmented crop as their student (Beyer et al., CVPR
2022): there is no end of crops, and a teacher has an answer to each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glioslice.errors import GliosliceError
from glioslice.labels import to_labels
from glioslice.metrics import region_dice
from glioslice.model_card import Card
from training.checkpoint import load_model
from training.dataset import Slices
from training.distributed import Process
from training.network import Network, folded

AT_ONCE = 16
"""Slices of a volume that are looked at together."""


@dataclass(frozen=True)
class Ensemble:
    """Networks in evaluation mode; `cards` says what each was trained on, where that matters."""

    networks: tuple[Network, ...] = ()
    cards: tuple[Card, ...] = ()

    @property
    def entries(self) -> list[dict[str, str]]:
        """What a student's card says of them: name, and SHA-256 of the checkpoint."""
        files = [(card.name, card.content["files"]) for card in self.cards]
        return [{"name": n, "sha256": held[f"{n}.safetensors"]["sha256"]} for n, held in files]

    @property
    def cases(self) -> list[dict[str, str]]:
        """The cases that each of them was trained on."""
        return [case for card in self.cards for case in card.content["training"]["cases"]]

    def to(self, device: torch.device) -> None:
        """Move the networks to `device`."""
        for network in self.networks:
            network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def chances(self, images: Tensor, place: Process) -> Tensor:
        """Return the mean of their probabilities (B, 3, H, W) for images (B, 4, H, W)."""
        total = torch.zeros((), device=images.device)
        images = images.contiguous(memory_format=torch.channels_last)
        for network in self.networks:
            with torch.autocast(place.device.type, torch.bfloat16, enabled=place.mixed):
                logits = network(images)
            total = total + torch.sigmoid(logits.float())
        return total / len(self.networks)


def load_teachers(folders: Sequence[Path], held_out: Sequence[Slices]) -> Ensemble:
    """Return the networks of model folders.

    Raises GliosliceError if one was trained on a held-out case: its student would know of it.
    """
    loaded = [load_model(folder) for folder in folders]
    for folder, (_, card) in zip(folders, loaded, strict=True):
        for case in held_out:
            if case.digest in card.trained_on:
                raise GliosliceError(f"--teacher {folder}: was trained on {case.case}, held out")
    return Ensemble(tuple(folded(net) for net, _ in loaded), tuple(card for _, card in loaded))


def case_dice(ensemble: Ensemble, case: Slices, place: Process) -> dict[str, float]:
    """Return the Dice of a volume in WT, TC, ET and their mean."""
    images = torch.from_numpy(np.array(case.images))  # torch wants it writable
    parts = images.permute(0, 3, 1, 2).split(AT_ONCE)  # (B, 4, 160, 192)
    found = [(ensemble.chances(part.to(place.device).float(), place) > 0.5).cpu() for part in parts]
    regions = torch.cat(found).permute(1, 0, 2, 3).numpy()  # (3, Z, X, Y)
    return region_dice(to_labels(regions), case.labels)
