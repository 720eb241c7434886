"""Parity of the float file with the network, layer by layer, before anything is rounded.

A converter that misreads an op silently computes something else, and an int8 file made of it agrees
with it perfectly. So each layer of a network of glioslice must be found again among the float
file's tensors. Of an external network only the output must be found; its layers are matched to name
them, since an activation that is not a layer of its own leaves no tensor before it in the file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from convert.tflite.interpreter import snr, tensor_values
from convert.tflite.reader import list_of, non_constant, read_model
from glioslice.errors import GliosliceError

MIN_SNR = 60.0
"""dB: an error of a thousandth of a layer's values. Float rounding alone leaves 110 or more."""

WEIGHTED_LAYERS = (_ConvNd, nn.Linear)


@dataclass(frozen=True, eq=False)
class Step:
    """Consecutive layers of a network: one with weights, its norm and its activation.

    `output` (1, X, Y, C) is that of the last one.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    output: NDArray[np.float32]
    weighted: bool


@dataclass(frozen=True)
class Block:
    """A layer of the network with its norm and activation: `kinds` are their classes.

    `tensor` is the index of the float file's nearest tensor, at `snr` dB; -1 if there is none.
    """

    name: str
    kinds: tuple[str, ...]
    snr: float
    tensor: int


def match_blocks(
    runs: Sequence[Sequence[Step]], fp32: bytes, slices: NDArray[np.float32]
) -> tuple[Block, ...]:
    """Return the blocks of a network in order, each with the float file's nearest tensor.

    `runs` holds the network's steps for each of `slices` (N, X, Y, inputs). A tensor is as
    near as it is on its worst slice.
    """
    values = list(tensor_values(fp32, slices))
    weighted, free = _weighted(fp32), set(values[0])
    blocks = []
    for number, step in enumerate(runs[0]):
        nearest = {
            index: _lowest(
                snr(run[number].output, of[index]) for run, of in zip(runs, values, strict=True)
            )
            for index, value in values[0].items()
            if value.shape == step.output.shape
        }
        finite = {index: value for index, value in nearest.items() if not np.isnan(value)}
        # Equal tensors, as where zeros are added to a skip, are matched in the order of the blocks.
        unused = {i: ratio for i, ratio in finite.items() if i in free and ratio >= MIN_SNR}
        choice = unused or finite
        best = max(choice, key=lambda i: (choice[i], i in weighted, -i), default=-1)
        free.discard(best)
        ratio = finite.get(best, float("nan"))
        blocks.append(Block(_common_path(step.names), step.kinds, ratio, best))
    return tuple(blocks)


def check_parity(blocks: tuple[Block, ...]) -> dict[int, str]:
    """Return the names of the float file's tensors, by index.

    Raises GliosliceError naming the first block that the file does not compute.
    """
    for block in blocks:
        if not block.snr >= MIN_SNR:
            found = (
                "no tensor of its shape is finite"
                if block.tensor < 0
                else f"the nearest tensor is at {block.snr:.0f} dB, {MIN_SNR:.0f} dB are required"
            )
            raise GliosliceError(
                f"the float file differs from the trained network from {block.name} "
                f"({', '.join(block.kinds)}) on: {found}; nothing was written. Build that layer of "
                "supported ops: convolution, ReLU, max pooling, nearest or bilinear resizing"
            )
    return {block.tensor: block.name for block in blocks}


def torch_steps(network: nn.Module, slices: NDArray[np.float32]) -> list[list[Step]]:
    """Return the steps of a torch network for each of the slices (N, X, Y, C)."""
    return [_steps(network, one) for one in slices]


def merge_steps(steps: Iterable[Step]) -> list[Step]:
    """Return the steps; one without weights is merged into the one before if it has its shape."""
    merged: list[Step] = []
    for step in steps:
        if merged and not step.weighted and merged[-1].output.shape == step.output.shape:
            last = merged.pop()
            names, kinds = (*last.names, *step.names), (*last.kinds, *step.kinds)
            step = Step(names, kinds, step.output, last.weighted)
        merged.append(step)
    return merged


def _steps(network: nn.Module, one: NDArray[np.float32]) -> list[Step]:
    calls: list[Step] = []
    hooks = []
    for name, module in network.named_modules():
        if any(module.children()):
            continue

        def keep(module: nn.Module, _: Any, output: Tensor, name: str = name) -> None:
            last = output.movedim(1, -1) if output.ndim > 1 else output
            kinds = () if isinstance(module, nn.Identity) else (type(module).__name__,)
            weighted = isinstance(module, WEIGHTED_LAYERS)
            calls.append(Step((name,), kinds, last.detach().clone().numpy(), weighted))

        hooks.append(module.register_forward_hook(keep))
    try:
        with torch.no_grad():
            network(torch.from_numpy(one).permute(2, 0, 1)[None])
    finally:
        for hook in hooks:
            hook.remove()
    return merge_steps(calls)


def _weighted(fp32: bytes) -> set[int]:
    """Return the tensors that ops with weights compute."""
    model = read_model(fp32)
    return {
        index
        for operator in model.subgraphs[0].operators
        if len(non_constant(model, operator.inputs)) < len(list_of(operator.inputs))
        for index in non_constant(model, operator.outputs)
    }


def _lowest(ratios: Iterable[float]) -> float:
    return float(np.min(list(ratios)))  # nan where one is nan


def _common_path(names: Sequence[str]) -> str:
    """Return the common path of modules: encoder.0.1 for encoder.0.1.0 and encoder.0.1.2."""
    if len(names) == 1:
        return names[0]
    paths = [name.split(".") for name in names]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or names[0]
