import numpy as np
from ai_edge_litert import schema_py_generated as schema

from convert.tflite.deduplication import CONSTANT_ALIGNMENT, Recorder, Table, Vector


def test_equal_tables_are_one_node() -> None:
    recorder = Recorder()
    tensors = [schema.TensorT(shape=np.array([1, 8]), type=9) for _ in range(3)]
    graph = schema.SubGraphT(tensors=tensors)
    graph.Pack(recorder)
    tables = [node for node in recorder.nodes if isinstance(node, Table)]
    assert len(tables) == 2
    [references] = [
        node.content
        for node in recorder.nodes
        if isinstance(node, Vector) and isinstance(node.content, tuple)
    ]
    assert len(references) == 3
    assert len(set(references)) == 1


def test_what_differs_in_one_field_stays_apart() -> None:
    recorder = Recorder()
    for variable in (True, False, True):
        schema.TensorT(shape=np.array([1, 8]), isVariable=variable).Pack(recorder)
    assert sum(isinstance(node, Table) for node in recorder.nodes) == 2


def test_only_bytes_are_aligned_as_constants() -> None:
    recorder = Recorder()

    def alignment(values: object) -> int:
        node = recorder.nodes[recorder.CreateNumpyVector(np.asarray(values)) - 1]
        assert isinstance(node, Vector)
        return node.alignment

    assert alignment(np.zeros(3, np.uint8)) == CONSTANT_ALIGNMENT
    assert alignment(np.zeros(3, np.bool_)) == 1
    assert alignment(np.zeros(3, np.uint16)) == 2
    assert alignment(np.zeros(3, np.float32)) == 4
    assert alignment(np.zeros(3, np.int64)) == 8
