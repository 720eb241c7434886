"""Ensembles of trained networks, and distillation from them.

Teachers (Hinton et al., 2015) see the same augmented crop as their student (Beyer et al., CVPR
2022): crops are unlimited, and a teacher labels each of them.
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
from training.dataset import CaseSlices, patient_name
from training.extra_images import read_lesion_patients
from training.network import Network, fold_batch_norms
from training.trainer import DistributedContext

VALIDATION_BATCH = 16
"""Slices of a volume per forward pass."""


@dataclass(frozen=True)
class Ensemble:
    """Networks in evaluation mode, and their cards if they are teachers."""

    networks: tuple[Network, ...] = ()
    cards: tuple[Card, ...] = ()

    @property
    def card_entries(self) -> list[dict[str, str]]:
        """Name and checkpoint SHA-256 of each network, for the student's card."""
        files = [(card.name, card.content["files"]) for card in self.cards]
        return [{"name": n, "sha256": of[f"{n}.safetensors"]["sha256"]} for n, of in files]

    @property
    def training_cases(self) -> list[dict[str, str]]:
        """The cases that the networks were trained on."""
        return [case for card in self.cards for case in card.content["training"]["cases"]]

    def to(self, device: torch.device) -> None:
        """Move the networks to `device`."""
        for network in self.networks:
            network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def probabilities(self, images: Tensor, context: DistributedContext) -> Tensor:
        """Return the mean probabilities (B, 3, H, W) for images (B, 4, H, W)."""
        total = torch.zeros((), device=images.device)
        images = images.contiguous(memory_format=torch.channels_last)
        for network in self.networks:
            with torch.autocast(
                context.device.type, torch.bfloat16, enabled=context.mixed_precision
            ):
                logits = network(images)
            total = total + torch.sigmoid(logits.float())
        return total / len(self.networks)


def load_teachers(
    folders: Sequence[Path], held_out: Sequence[CaseSlices], patients: Path | None
) -> Ensemble:
    """Return the networks of model folders.

    Raises GliosliceError if one was trained on a held-out patient, which would leak to its student.
    """
    loaded = [load_model(folder) for folder in folders]
    for folder, (_, card) in zip(folders, loaded, strict=True):
        check_unseen("--teacher", folder, card, held_out, patients)
    return Ensemble(
        tuple(fold_batch_norms(net) for net, _ in loaded), tuple(card for _, card in loaded)
    )


def check_unseen(
    option: str,
    folder: Path,
    card: Card,
    held_out: Sequence[CaseSlices],
    patients: Path | None,
) -> None:
    """Raise GliosliceError if a model, named by `option`, was trained on a held-out patient.

    Cases are compared by their images. Other visits are known by the names of BraTS 2023, and the
    patients of lesion cubes and single slices by the table `patients`, if there is one.
    """
    training = card.content["training"]
    seen = {patient_name(case["case"]) for case in training["cases"]}
    name_of = read_lesion_patients(patients) if patients else {}
    extras = [entry for key in ("cubes", "single_slices") if (entry := training.get(key))]
    for case in held_out:
        patient, extra = patient_name(case.case), name_of.get(case.case)
        if case.digest in card.trained_on:
            what = f"the held-out case {case.case}"
        elif patient != case.case and patient in seen:
            what = f"another visit of the held-out case {case.case}"
        elif extra and any(extra not in entry.get("left_out", ()) for entry in extras):
            what = f"lesion cubes or slices of the held-out case {case.case}"
        else:
            continue
        raise GliosliceError(
            f"{option} {folder}: was trained on {what}, so its Dice would not be that of unseen "
            "cases; hold others out, or start from a model that has not seen them"
        )


def volume_dice(
    ensemble: Ensemble, case: CaseSlices, context: DistributedContext
) -> dict[str, float]:
    """Return the volume Dice of WT, TC, ET and their mean."""
    images = torch.from_numpy(np.array(case.images))  # torch requires a writable array
    parts = images.permute(0, 3, 1, 2).split(VALIDATION_BATCH)  # (B, 4, 160, 192)
    masks = [
        (ensemble.probabilities(part.to(context.device).float(), context) > 0.5).cpu()
        for part in parts
    ]
    regions = torch.cat(masks).permute(1, 0, 2, 3).numpy()  # (3, Z, X, Y)
    return region_dice(to_labels(regions), case.labels)
