"""The state of a training run and its log.

State: network, averaged weights and optimiser, in memory and on disk. Log: a CSV file, TensorBoard
and, on request, Weights & Biases.
"""

import csv
import os
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensorboard.summary import Writer
from torch import Tensor
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from glioslice.errors import GliosliceError
from glioslice.files import atomic_path
from training.checkpoint import STATE, load_state, save_tensors
from training.config import TrainingConfig
from training.data_parallel import DistributedContext
from training.network import Network

EpochRow = dict[str, float]


class RunLog:
    """The log of one run, one row per epoch; a resumed run appends to the rows it had."""

    def __init__(
        self, run: Path, rows: list[EpochRow], wandb: bool, settings: dict[str, Any]
    ) -> None:
        self.rows = rows
        self._csv = run / "log.csv"
        self._tensorboard = Writer(str(run / "tensorboard"))
        self._wandb = _start_wandb(run, settings) if wandb else None

    def add(self, row: EpochRow) -> None:
        """Append the row of an epoch; `row["epoch"]` counts from 1."""
        self.rows.append(row)
        with atomic_path(self._csv) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for r in self.rows for k in r)))
            writer.writeheader()
            writer.writerows(self.rows)
        for name, value in row.items():
            self._tensorboard.add_scalar(name, value, int(row["epoch"]))
        if self._wandb is not None:
            self._wandb.log(row, step=int(row["epoch"]))

    def close(self) -> None:
        """Close TensorBoard's file and the Weights & Biases run."""
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(run: Path, settings: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise GliosliceError(
            "--wandb needs the package wandb: pip install 'glioslice[wandb]'"
        ) from None
    # Nothing leaves the machine unless the user has logged in and set WANDB_MODE=online.
    os.environ.setdefault("WANDB_MODE", "offline")
    return wandb.init(project="glioslice", dir=str(run), config=settings)


@dataclass(frozen=True)
class Trainer:
    """What training changes: the network, the running average of its weights, the optimiser."""

    network: Network
    average: AveragedModel
    optimiser: AdamW

    @property
    def averaged_network(self) -> Network:
        """The network with averaged weights, which is validated and saved."""
        network = self.average.module
        assert isinstance(network, Network)
        return network


def new_trainer(network: Network, config: TrainingConfig) -> Trainer:
    """Return the trainer of a new run; the network must be on its device."""
    return Trainer(
        network,
        AveragedModel(
            network, multi_avg_fn=partial(update_average, config.average), use_buffers=True
        ),
        AdamW(
            network.parameters(),
            lr=config.rate,
            weight_decay=config.decay,
            fused=next(network.parameters()).is_cuda,
        ),
    )


@torch.no_grad()
def update_average(decay: float, average: Any, current: Any, updates: Tensor) -> None:
    """Move `average` towards `current` by 1 - decay, faster in the first steps of a run."""
    decay = min(decay, (1 + int(updates)) / (10 + int(updates)))
    # torch groups tensors by type; counters (integers) are copied, not averaged.
    if average[0].is_floating_point():
        torch._foreach_lerp_(average, current, 1 - decay)
    else:
        torch._foreach_copy_(average, current)


@dataclass(frozen=True)
class Position:
    """How far a run is: the rows of finished epochs, and batches of the one that is not finished.

    `loss` is the sum of those batches' losses.
    """

    rows: list[EpochRow]
    batches: int = 0
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))


def save_state(run: Path, trainer: Trainer, settings: dict[str, Any], position: Position) -> None:
    """Write everything that the next batch depends on into one file."""
    tensors: dict[str, Tensor] = {
        f"{part}.{name}": tensor
        for part, module in (("network", trainer.network), ("average", trainer.average))
        for name, tensor in module.state_dict().items()
    }
    for index, state in trainer.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
    note: dict[str, Any] = {"settings": settings, "rows": position.rows}
    if position.batches:
        tensors["epoch.loss"] = position.loss
        note["batches"] = position.batches
    save_tensors(run / STATE, tensors, note)


def restore_state(run: Path, trainer: Trainer, settings: dict[str, Any]) -> Position:
    """Load the state of `run` into the trainer; return how far the run was.

    Raises GliosliceError if the run was started with other settings or cases.
    """
    tensors, note = load_state(run)
    for name, value in settings.items():
        if note["settings"].get(name) != value:
            raise GliosliceError(
                f"{run}: was started with a different value of {name}; resume with the same"
            )
    for part, module in (("network.", trainer.network), ("average.", trainer.average)):
        module.load_state_dict(
            {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)}
        )
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = tensor
    trainer.optimiser.load_state_dict(
        {"state": state, "param_groups": trainer.optimiser.state_dict()["param_groups"]}
    )
    position = Position(note["rows"], note.get("batches", 0))
    return replace(position, loss=tensors["epoch.loss"]) if position.batches else position


def record_cuda_graphs(
    network: Network, batch: int, crop: int, context: DistributedContext
) -> Network:
    """Record the network's training passes for images (batch, C, crop, crop) as CUDA graphs.

    A compact network's kernels finish faster than Python starts the next one. Recorded kernels are
    launched together, so a GPU trains several networks in the time of one. The network is changed
    in place and returned; in evaluation mode it runs as before. On a CPU nothing changes.
    """
    if context.device.type != "cuda":
        return network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sample = torch.zeros(batch, network.config.inputs, crop, crop, device=context.device)
    sample = sample.contiguous(memory_format=torch.channels_last)
    network.train()
    with torch.autocast(
        "cuda", torch.bfloat16, enabled=context.mixed_precision, cache_enabled=False
    ):
        torch.cuda.make_graphed_callables(network, (sample,))  # replaces its forward
    network.load_state_dict(before)  # recording has changed the running means
    return network
