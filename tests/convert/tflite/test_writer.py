import struct
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from convert.tflite.writer import CONSTANT_ALIGNMENT, DeduplicatingBuilder, Table, Vector, serialize


def test_equal_tables_are_one_node() -> None:
    builder = DeduplicatingBuilder()
    tensors = [schema.TensorT(shape=np.array([1, 8]), type=9) for _ in range(3)]
    graph = schema.SubGraphT(tensors=tensors)
    graph.Pack(builder)
    tables = [node for node in builder.nodes if isinstance(node, Table)]
    assert len(tables) == 2
    [references] = [
        node.content
        for node in builder.nodes
        if isinstance(node, Vector) and isinstance(node.content, tuple)
    ]
    assert len(references) == 3
    assert len(set(references)) == 1


def test_tables_that_differ_in_one_field_stay_separate() -> None:
    builder = DeduplicatingBuilder()
    for variable in (True, False, True):
        schema.TensorT(shape=np.array([1, 8]), isVariable=variable).Pack(builder)
    assert sum(isinstance(node, Table) for node in builder.nodes) == 2


def test_only_bytes_are_aligned_as_constants() -> None:
    builder = DeduplicatingBuilder()

    def alignment(values: object) -> int:
        node = builder.nodes[builder.CreateNumpyVector(np.asarray(values)) - 1]
        assert isinstance(node, Vector)
        return node.alignment

    assert alignment(np.zeros(3, np.uint8)) == CONSTANT_ALIGNMENT
    assert alignment(np.zeros(3, np.bool_)) == 1
    assert alignment(np.zeros(3, np.uint16)) == 2
    assert alignment(np.zeros(3, np.float32)) == 4
    assert alignment(np.zeros(3, np.int64)) == 8


def buffer(data: bytes) -> Any:
    return schema.BufferT(data=np.frombuffer(data, np.uint8))


@given(st.lists(st.binary(min_size=1, max_size=70), max_size=12))
def test_buffers_are_read_back_and_aligned(blobs: list[bytes]) -> None:
    content = serialize(schema.ModelT(version=3, buffers=[buffer(blob) for blob in blobs]))
    model = schema.Model.GetRootAs(content, 0)
    assert model.Version() == 3
    tables = [model.Buffers(i) for i in range(model.BuffersLength())]
    assert [table.DataAsNumpy().tobytes() for table in tables] == blobs
    assert all(
        table._tab.Vector(table._tab.Offset(4)) % CONSTANT_ALIGNMENT == 0 for table in tables
    )


@given(
    st.lists(st.floats(width=32, allow_nan=False), max_size=5),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    st.integers(-(2**31), 2**31 - 1),
)
def test_numbers_of_every_width_survive(
    scales: list[float], points: list[int], dimension: int
) -> None:
    quantization = schema.QuantizationParametersT(
        scale=np.array(scales, np.float32), zeroPoint=points, quantizedDimension=dimension
    )
    tensor = schema.TensorT(name="a", shape=[1, 2], isVariable=True, quantization=quantization)
    content = serialize(schema.ModelT(subgraphs=[schema.SubGraphT(tensors=[tensor])]))
    read = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].tensors[0]
    assert (read.name, list(read.shape), read.isVariable) == (b"a", [1, 2], True)
    assert list(read.quantization.scale if scales else []) == scales
    assert list(read.quantization.zeroPoint if points else []) == points
    assert read.quantization.quantizedDimension == dimension


def test_64_bit_numbers_lie_at_multiples_of_8() -> None:
    tensors = [
        schema.TensorT(
            name="x" * n, quantization=schema.QuantizationParametersT(zeroPoint=np.array([n]))
        )
        for n in range(6)
    ]
    content = serialize(schema.ModelT(subgraphs=[schema.SubGraphT(tensors=tensors)]))
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    for n in range(6):
        table = graph.Tensors(n).Quantization()._tab
        position = table.Vector(table.Offset(10))
        assert position % 8 == 0
        assert struct.unpack_from("<q", content, position) == (n,)


def test_equal_parts_are_written_once() -> None:
    blob = bytes(range(200))
    one = serialize(schema.ModelT(buffers=[buffer(blob)]))
    many = serialize(schema.ModelT(buffers=[buffer(blob) for _ in range(10)]))
    assert len(many) <= len(one) + 9 * 4  # references in the model's list, nothing else


def test_small_vectors_fill_the_gaps_before_constants() -> None:
    def size(*shapes: list[int]) -> int:
        blobs = [buffer(bytes([n]) * 16) for n in range(8)]
        tensors = [schema.TensorT(buffer=n + 1, shape=shape) for n, shape in enumerate(shapes)]
        graph = schema.SubGraphT(tensors=tensors)
        return len(serialize(schema.ModelT(buffers=blobs, subgraphs=[graph])))

    # Eight vectors of 12 bytes cost little more than the eight references to them.
    assert size(*([n, n] for n in range(8))) <= size(*([1, 1] for _ in range(8))) + 16


def test_vectors_of_other_alignment_stay_separate() -> None:
    builder = DeduplicatingBuilder()
    as_bytes = builder.CreateNumpyVector(np.zeros(8, np.uint8))
    as_string = builder.CreateString(bytes(7))
    assert as_bytes != as_string
    assert builder.nodes[as_bytes - 1] == Vector(8, CONSTANT_ALIGNMENT, bytes(8))


@pytest.mark.parametrize("values", [[1, 2, 3], []])
def test_lists_are_written_as_arrays_are(values: list[int]) -> None:
    as_list = schema.ModelT(metadataBuffer=values)
    as_array = schema.ModelT(metadataBuffer=np.array(values, np.int32))
    assert serialize(as_list) == serialize(as_array)
