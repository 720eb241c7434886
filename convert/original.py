"""A network that is not ours, as it came: an ONNX file, or a torch module that a function makes."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convert.export import onnx_of
from convert.onnx_file import Floats, Shape, prepared, read_onnx, runner
from glioslice.errors import GliosliceError


@dataclass(frozen=True, eq=False)
class Original:
    """A network, how to run it, and its ONNX model, prepared for conversion.

    `run` takes (1, *shape) and gives its output, (1, K) or (1, K, H', W').
    """

    name: str
    shape: Shape
    model: Any
    run: Callable[[Floats], Floats]


def from_onnx(path: Path, shape: Shape | None) -> Original:
    """Return the network of an ONNX file, run by ONNX Runtime; `shape` where the file has none.

    Raises GliosliceError if it is no ONNX file, or not one that can be converted.
    """
    try:
        model, sizes = prepared(read_onnx(path), shape)
        return Original(path.stem, sizes, model, _checked(runner(model), sizes))
    except GliosliceError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise GliosliceError(f"{where}{error}") from None


def from_module(path: str, shape: Shape) -> Original:
    """Return the network that `path`, package.module:factory, makes; torch runs it.

    A factory takes no arguments; it may be a module itself. Modules of the working directory are
    found too. Raises GliosliceError if there is none, it fails, or what it makes is no network
    that can be converted.
    """
    import onnx

    network = _made(path).eval()
    for name, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise GliosliceError(f"--module {path}: {name} holds NaN or infinite weights")

    @torch.no_grad()
    def run(batch: Floats) -> Floats:
        made = network(torch.from_numpy(np.ascontiguousarray(batch)))
        if not isinstance(made, Tensor):
            raise GliosliceError(f"it gives {type(made).__name__}; let it give one tensor")
        return np.asarray(made.numpy())

    try:
        checked = _checked(run, shape)
        model, _ = prepared(onnx.ModelProto.FromString(onnx_of(network, shape)), shape)
    except GliosliceError as error:
        raise GliosliceError(f"--module {path}: {error}") from None
    return Original(path.partition(":")[2].rpartition(".")[2], shape, model, checked)


def _made(path: str) -> nn.Module:
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so as to hide nothing
    try:
        found: Any = getattr(import_module(module), name)
    except Exception as error:  # importing runs whatever the module holds
        raise GliosliceError(
            f"--module {path}: cannot be imported ({type(error).__name__}: {error}); expected "
            "package.module:factory"
        ) from error
    try:
        network = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        raise GliosliceError(
            f"--module {path}: making the network failed ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(network, nn.Module):
        raise GliosliceError(f"--module {path}: makes {type(network).__name__}, no torch module")
    return network


def _checked(run: Callable[[Floats], Floats], shape: Shape) -> Callable[[Floats], Floats]:
    """Return `run` once it is sure that it takes `shape` and gives one batch of numbers."""
    try:
        made = run(np.zeros((1, *shape), np.float32))
    except GliosliceError:
        raise
    except Exception as error:  # a network may raise anything
        raise GliosliceError(
            f"it does not take (1, {', '.join(map(str, shape))}) ({type(error).__name__}: {error});"
            " is --input-shape right?"
        ) from error
    if made.dtype != np.float32 or made.ndim not in (2, 4) or made.shape[0] != 1:
        raise GliosliceError(
            f"it gives {made.dtype} of {made.shape}; expected float32 of (1, outputs) or "
            "(1, outputs, rows, columns)"
        )
    return run
