"""Packing changes no bit of any output in any runtime, for networks of many architectures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from numpy.typing import NDArray

from convert.pack import pack
from convert.tflite.reader import read_model
from tests.convert.keras_networks import NETWORKS, PRECISIONS, converted
from tests.convert.runtimes import RUNTIMES, same_outputs

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "models").glob("*/*.tflite"))
MICRO_REJECTS = {(network, "fp16") for network in NETWORKS} | {("autoencoder", "16x8")}
"""TFLite Micro keeps no weights in fp16 and has no RESIZE_BILINEAR in int16."""


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("network", NETWORKS)
def test_other_networks_compute_the_same(network: str, precision: str) -> None:
    content = converted(*NETWORKS[network], precision)
    packed = pack(content)
    assert len(packed) < len(content)
    assert pack(packed) == packed
    rejected = {"TFLite Micro"} if (network, precision) in MICRO_REJECTS else set()
    assert same_outputs(content, packed) == set(RUNTIMES) - rejected


def inflated(content: bytes) -> bytes:
    """The same network as a converter would write it: nothing shared, all named and described."""
    model = read_model(content)
    model.description = "converted again"
    empty = type(model.buffers[0])()
    buffers: list[Any] = [empty]
    for graph in model.subgraphs:
        graph.name = "main"
        for index, tensor in enumerate(graph.tensors):
            tensor.name = tensor.name or f"unet/tensor_{index}"
            tensor.shapeSignature = tensor.shape
            data = model.buffers[tensor.buffer].data
            if data is not None:
                buffers.append(type(empty)(data=data))
                tensor.buffer = len(buffers) - 1
    model.buffers = buffers
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.slow
@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_compute_the_same(file: Path) -> None:
    content = file.read_bytes()
    before = inflated(content)
    assert len(before) > len(content)
    assert pack(before) == content
    rejected = {"TFLite Micro"} if "fp16" in file.name else set()
    assert same_outputs(before, content, seeds=1) == set(RUNTIMES) - rejected


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
def test_exported_files_compute_the_same(exported: dict[str, bytes], precision: str) -> None:
    packed = pack(exported[precision])
    rejected = {"TFLite Micro"} if precision == "fp16" else set()
    assert same_outputs(exported[precision], packed) == set(RUNTIMES) - rejected


def test_the_comparison_finds_one_wrong_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Last:
        calls = 0

    def almost(content: bytes, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        Last.calls += 1
        values = np.zeros(4, np.int8)
        values[3] = Last.calls % 2
        return [values]

    fakes: dict[str, Callable[..., Any]] = {"LiteRT": almost}
    monkeypatch.setattr("tests.convert.runtimes.RUNTIMES", fakes)
    content = SHIPPED[0].read_bytes()
    with pytest.raises(AssertionError):
        same_outputs(content, content)
