"""Layers that are known to break on the way to int8, named before any work is done.

What is said of each was measured on networks of this size with the tools that are pinned.
"""

from collections.abc import Mapping

import torch.nn as nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from convert.editing import flowing, op_name
from convert.graph import EXPECTED
from convert.layers import labels_of
from convert.reading import read_model
from glioslice.errors import GliosliceError


def check_layers(network: nn.Module) -> None:
    """Look at every module of a network.

    Raises GliosliceError naming those that break, why, and what to use instead.
    """
    found = [
        f"{name or 'the network'} ({type(module).__name__}): {what}"
        for name, module in network.named_modules()
        if (what := trouble(module))
    ]
    if found:
        raise GliosliceError(f"layers that do not survive conversion: {'; '.join(found)}")


def trouble(module: nn.Module) -> str:
    """Return what is wrong with a layer and what to use instead, "" if nothing is known."""
    if isinstance(module, nn.PReLU):
        return "fails or turns into NaN, depending on its slopes; use ReLU"
    if isinstance(module, _InstanceNorm):
        return "is off by a hundredth of its values; use BatchNorm, which is folded away"
    if isinstance(module, nn.Hardswish):
        return "makes int8 4.5 times slower; use ReLU"
    if isinstance(module, _ConvTransposeNd) and module.groups > 1:
        return "makes int8 4.5 times slower; use nearest upsampling and a convolution"
    if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
        return "spends its bytes on scales and runs at half the speed; use a plain convolution"
    return ""


def check_ops(fp32: bytes, names: Mapping[int, str]) -> None:
    """Look at the ops of a float file; `names` has the layers of its tensors.

    Raises GliosliceError naming the layers behind ops that this kit does not emit.
    """
    model = read_model(fp32)
    labels = labels_of(model, names)
    foreign = [
        f"{op_name(model, operator)} after {labels[flowing(model, operator.inputs)[0]]}"
        for operator in model.subgraphs[0].operators
        if op_name(model, operator) not in EXPECTED
    ]
    if foreign:
        raise GliosliceError(
            f"ops that this kit does not emit: {', '.join(foreign)}; use "
            f"{', '.join(sorted(EXPECTED))} alone"
        )
