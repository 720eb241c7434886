import numpy as np
from ai_edge_litert import schema_py_generated as schema

from convert.tflite.deduplication import CONSTANT_ALIGNMENT, DeduplicatingBuilder, Table, Vector


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
