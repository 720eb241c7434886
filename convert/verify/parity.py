"""Whether the float file still is the trained network, layer by layer, before anything is rounded.

A converter that misreads an op computes something else without a word, and int8 made of it agrees
with it perfectly. So each layer of the trained network must be found again among the float file's
tensors. Of a network that is not ours the output must be, and layers are looked for to name them:
where an activation is no layer of its own, what is before it is no tensor of the file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from convert.tflite.editor import flowing
from convert.tflite.interpreter import snr, values_of
from convert.tflite.reader import list_of, read_model
from glioslice.errors import GliosliceError

LIMIT = 60.0
"""dB: errors of a thousandth of a layer's values. Float rounding alone leaves 110 and more."""

WEIGHTED = (_ConvNd, nn.Linear)


@dataclass(frozen=True, eq=False)
class Step:
    """Layers that a network runs one after the other: one with weights, its norm and activation.

    `output` (1, X, Y, C) is that of the last.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    output: NDArray[np.float32]
    weighted: bool


@dataclass(frozen=True)
class Block:
    """A layer of the network with its norm and activation: `kinds` are their classes.

    `tensor` is the one of the float file that comes nearest, by `snr` in dB.
    """

    name: str
    kinds: tuple[str, ...]
    snr: float
    tensor: int


def blocks_of(
    runs: Sequence[Sequence[Step]], fp32: bytes, slices: NDArray[np.float32]
) -> tuple[Block, ...]:
    """Return the blocks of a network, in the order in which it runs them.

    `runs` has its steps for each of `slices` (N, X, Y, inputs); the worst slice decides how near a
    tensor comes.
    """
    values = list(values_of(fp32, slices))
    weighted, free = _weighted(fp32), set(values[0])
    blocks = []
    for number, step in enumerate(runs[0]):
        nearest = {
            index: _worst(
                snr(run[number].output, of[index]) for run, of in zip(runs, values, strict=True)
            )
            for index, value in values[0].items()
            if value.shape == step.output.shape
        }
        finite = {index: value for index, value in nearest.items() if not np.isnan(value)}
        # Equal tensors, as where nothing is added to a skip, go to the blocks in their order.
        fresh = {i: value for i, value in finite.items() if i in free and value >= LIMIT} or finite
        best = max(fresh, key=lambda i: (fresh[i], i in weighted, -i), default=-1)
        free.discard(best)
        snr_of_best = finite.get(best, float("nan"))
        blocks.append(Block(_common(step.names), step.kinds, snr_of_best, best))
    return tuple(blocks)


def check_faithful(blocks: tuple[Block, ...]) -> dict[int, str]:
    """Return the names of the float file's tensors, by index.

    Raises GliosliceError naming the first block that the file does not compute.
    """
    for block in blocks:
        if not block.snr >= LIMIT:
            found = "no tensor of its shape is finite" if block.tensor < 0 else (
                f"the nearest tensor is at {block.snr:.0f} dB, {LIMIT:.0f} are asked for"
            )  # fmt: skip
            raise GliosliceError(
                f"the float file is not the trained network from {block.name} "
                f"({', '.join(block.kinds)}) on: {found}; nothing was written. Put ops in that "
                "layer that survive conversion: convolution, ReLU, max pooling, nearest resizing"
            )
    return {block.tensor: block.name for block in blocks}


def torch_steps(network: nn.Module, slices: NDArray[np.float32]) -> list[list[Step]]:
    """Return what a torch network does with each of the slices (N, X, Y, C)."""
    return [_steps(network, one) for one in slices]


def merged(steps: Iterable[Step]) -> list[Step]:
    """Return the steps, those without weights joined to the one before if it has their shape."""
    done: list[Step] = []
    for step in steps:
        if done and not step.weighted and done[-1].output.shape == step.output.shape:
            last = done.pop()
            names, kinds = (*last.names, *step.names), (*last.kinds, *step.kinds)
            step = Step(names, kinds, step.output, last.weighted)
        done.append(step)
    return done


def _steps(network: nn.Module, one: NDArray[np.float32]) -> list[Step]:
    calls: list[Step] = []
    hooks = []
    for name, module in network.named_modules():
        if any(module.children()):
            continue

        def keep(module: nn.Module, _: Any, output: Tensor, name: str = name) -> None:
            last = output.movedim(1, -1) if output.ndim > 1 else output
            kinds = () if isinstance(module, nn.Identity) else (type(module).__name__,)
            weighted = isinstance(module, WEIGHTED)
            calls.append(Step((name,), kinds, last.detach().clone().numpy(), weighted))

        hooks.append(module.register_forward_hook(keep))
    try:
        with torch.no_grad():
            network(torch.from_numpy(one).permute(2, 0, 1)[None])
    finally:
        for hook in hooks:
            hook.remove()
    return merged(calls)


def _weighted(fp32: bytes) -> set[int]:
    """Return the tensors that ops with weights compute."""
    model = read_model(fp32)
    return {
        index
        for operator in model.subgraphs[0].operators
        if len(flowing(model, operator.inputs)) < len(list_of(operator.inputs))
        for index in flowing(model, operator.outputs)
    }


def _worst(ratios: Iterable[float]) -> float:
    return float(np.min(list(ratios)))  # nan where one is nan


def _common(names: Sequence[str]) -> str:
    """Return the path that modules share: encoder.0.1 of encoder.0.1.0 and encoder.0.1.2."""
    if len(names) == 1:
        return names[0]
    paths = [name.split(".") for name in names]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or names[0]
