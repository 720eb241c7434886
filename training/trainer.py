"""What changes while a network learns, and its state on disk.

A network's forward and backward pass recorded as CUDA graphs.

A compact network's kernels end sooner than Python can start the next: recorded, they are started
together, and a GPU trains several networks in the time of one.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from glioslice.errors import GliosliceError
from training.checkpoint import STATE, load_state, save_tensors
from training.config import Recipe
from training.distributed import Process
from training.network import Network
from training.run_log import Row


@dataclass(frozen=True)
class Learner:
    """What changes in training: the network, the running average of its weights, the optimiser."""

    network: Network
    average: AveragedModel
    optimiser: AdamW

    @property
    def averaged(self) -> Network:
        """The network of average weights: what is judged and kept."""
        network = self.average.module
        assert isinstance(network, Network)
        return network


def new_learner(network: Network, recipe: Recipe) -> Learner:
    """Return the learner of a network that is on its device already."""
    return Learner(
        network,
        AveragedModel(network, multi_avg_fn=partial(blend, recipe.average), use_buffers=True),
        AdamW(
            network.parameters(),
            lr=recipe.rate,
            weight_decay=recipe.decay,
            fused=next(network.parameters()).is_cuda,
        ),
    )


@torch.no_grad()
def blend(keep: float, average: Any, current: Any, done: Tensor) -> None:
    """Move `average` to `current` by 1 - keep, and faster in the first steps of a run."""
    keep = min(keep, (1 + int(done)) / (10 + int(done)))
    # They come in groups of one kind: of numbers, or of counters, which are not averaged.
    if average[0].is_floating_point():
        torch._foreach_lerp_(average, current, 1 - keep)
    else:
        torch._foreach_copy_(average, current)


def save_state(run: Path, learner: Learner, settings: dict[str, Any], rows: list[Row]) -> None:
    """Write all that the next epoch depends on, in one file."""
    tensors: dict[str, Tensor] = {
        f"{part}.{name}": tensor
        for part, module in (("network", learner.network), ("average", learner.average))
        for name, tensor in module.state_dict().items()
    }
    for index, state in learner.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
    save_tensors(run / STATE, tensors, {"settings": settings, "rows": rows})


def restore(run: Path, learner: Learner, settings: dict[str, Any]) -> list[Row]:
    """Load the state of `run` into the learner; return the rows of its log.

    Raises GliosliceError if the run was started with other settings or other cases.
    """
    tensors, note = load_state(run)
    for name, value in settings.items():
        if note["settings"].get(name) != value:
            raise GliosliceError(f"{run}: was started with other {name}; resume it with the same")
    for part, module in (("network.", learner.network), ("average.", learner.average)):
        module.load_state_dict(
            {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)}
        )
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = tensor
    learner.optimiser.load_state_dict(
        {"state": state, "param_groups": learner.optimiser.state_dict()["param_groups"]}
    )
    rows: list[Row] = note["rows"]
    return rows


def captured(network: Network, batch: int, crop: int, place: Process) -> Network:
    """Return the network, its passes in training mode recorded for images (batch, C, crop, crop).

    The network is changed in place; in evaluation mode it runs as before. On a CPU nothing happens.
    """
    if place.device.type != "cuda":
        return network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sample = torch.zeros(batch, network.config.inputs, crop, crop, device=place.device)
    sample = sample.contiguous(memory_format=torch.channels_last)
    network.train()
    with torch.autocast("cuda", torch.bfloat16, enabled=place.mixed, cache_enabled=False):
        torch.cuda.make_graphed_callables(network, (sample,))  # changes its forward
    network.load_state_dict(before)  # the rehearsals have moved the running means
    return network
