"""What the schema does not know is reported, whatever reads the file afterwards."""

from typing import Any

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from convert.tflite.reader import ops_of, read_model
from glioslice.errors import GliosliceError
from tests.convert.targets.graphs import GraphBuilder


def convolution() -> Any:
    graph = GraphBuilder(1, 4, 4, 2)
    graph.conv(0, 2, 2, 2)
    return schema.ModelT.InitFromPackedBuf(graph.content, 0)


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_ops_and_types_of_a_newer_schema() -> None:
    model = convolution()
    assert [op.name for op in ops_of(read_model(packed(model)))] == ["CONV_2D"]
    model.operatorCodes[0].builtinCode = 5000
    with pytest.raises(GliosliceError, match="op 5000, which is newer"):
        read_model(packed(model))
    model = convolution()
    model.subgraphs[0].tensors[0].type = 99
    with pytest.raises(GliosliceError, match="tensor type 99, which is newer"):
        read_model(packed(model))


def test_a_negative_size() -> None:
    model = convolution()
    model.subgraphs[0].tensors[0].shape = [1, -4, 4, 2]
    with pytest.raises(GliosliceError, match="damaged"):
        read_model(packed(model))
