from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convert.pack import pack
from convert.tflite.reader import read_model
from glioslice.errors import GliosliceError

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "models").glob("*/*.tflite"))
PRECISIONS = ("int8", "fp16", "fp32")
QUICK = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def run(content: bytes, seed: int) -> NDArray[Any]:
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    [given] = interpreter.get_input_details()
    rng = np.random.default_rng(seed)
    if given["dtype"] == np.int8:
        values = rng.integers(-128, 128, given["shape"]).astype(np.int8)
    else:
        values = rng.normal(0, 2, given["shape"]).astype(np.float32)
    interpreter.set_tensor(given["index"], values)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def constants(content: bytes) -> list[int]:
    """Where each buffer's data lies in the file."""
    model = schema.Model.GetRootAs(content, 0)
    tables = [model.Buffers(i)._tab for i in range(model.BuffersLength())]
    return [tab.Vector(tab.Offset(4)) for tab in tables if tab.Offset(4)]


def kept(model: Any) -> Any:
    """All that must survive packing, as plain values."""
    graph = model.subgraphs[0]

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.tolist()
        if hasattr(value, "__dict__"):
            return {k: plain(v) for k, v in vars(value).items() if k not in ("min", "max")}
        if isinstance(value, list):
            return [plain(v) for v in value]
        return value

    def constant(tensor: Any) -> Any:
        data = model.buffers[tensor.buffer].data
        return None if data is None else data.tobytes()

    def scales(tensor: Any) -> Any:
        found = tensor.quantization
        if found is None or found.scale is None:
            return None
        return plain(found)

    return {
        "codes": plain(model.operatorCodes),
        "ops": plain(graph.operators),
        "ends": (plain(graph.inputs), plain(graph.outputs)),
        "names": [graph.tensors[i].name for i in (*graph.inputs, *graph.outputs)],
        "signatures": plain(model.signatureDefs),
        "tensors": [
            (plain(t.shape), t.type, t.isVariable, constant(t), scales(t)) for t in graph.tensors
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_are_bit_identical(exported: dict[str, bytes], precision: str) -> None:
    before, after = exported[precision], pack(exported[precision])
    assert len(after) < len(before)
    for seed in range(4):
        np.testing.assert_array_equal(run(before, seed), run(after, seed))


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_nothing_that_computes_is_lost(exported: dict[str, bytes], precision: str) -> None:
    before = exported[precision]
    assert kept(read_model(pack(before))) == kept(read_model(before))


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_packing_twice_changes_nothing(exported: dict[str, bytes], precision: str) -> None:
    once = pack(exported[precision])
    assert pack(once) == once


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_constants_are_aligned_and_shared(exported: dict[str, bytes], precision: str) -> None:
    packed = pack(exported[precision])
    places = constants(packed)
    assert places
    assert all(place % 16 == 0 for place in places)
    model = read_model(packed)
    contents = [b.data.tobytes() for b in model.buffers if b.data is not None]
    assert len(contents) == len(set(contents))
    assert model.buffers[0].data is None


@pytest.mark.slow
def test_names_inside_the_network_are_dropped(exported: dict[str, bytes]) -> None:
    graph = read_model(pack(exported["int8"])).subgraphs[0]
    ends = {*graph.inputs, *graph.outputs}
    assert all(graph.tensors[i].name for i in ends)
    assert not any(t.name for i, t in enumerate(graph.tensors) if i not in ends)


@pytest.mark.slow
@QUICK
@given(missing=st.one_of(st.integers(1, 40), st.integers(1, 4000)))
def test_a_truncated_file_is_rejected(exported: dict[str, bytes], missing: int) -> None:
    for content in (exported["int8"], pack(exported["int8"])):
        try:
            packed = pack(content[:-missing])
        except GliosliceError:
            continue
        # Only bytes that nobody reads, such as a string's final NUL, may be missing.
        assert missing < 4
        assert packed == pack(content)


def test_a_truncated_name_is_damage() -> None:
    graph = schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[])
    code = schema.OperatorCodeT(customCode="OneOfOurOwn")
    model = schema.ModelT(operatorCodes=[code], subgraphs=[graph], buffers=[schema.BufferT()])
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    assert content.rstrip(b"\0").endswith(b"OneOfOurOwn")
    assert b"OneOfOurOwn" in pack(content)
    with pytest.raises(GliosliceError, match="damaged"):
        pack(content.rstrip(b"\0")[:-3])


@pytest.mark.slow
@QUICK
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4))
def test_a_damaged_file_raises_no_other_error(
    exported: dict[str, bytes], changes: list[tuple[float, int]]
) -> None:
    content = bytearray(pack(exported["int8"]))
    for share, value in changes:
        content[int(share * len(content))] = value
    try:
        packed = pack(bytes(content))
    except GliosliceError:
        return
    assert packed[4:8] == b"TFL3"


@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\x03\x04 a zip file", bytes(100)])
def test_a_foreign_file_is_rejected(content: bytes) -> None:
    with pytest.raises(GliosliceError, match="not a TFLite file"):
        pack(content)


@pytest.mark.skipif(not SHIPPED, reason="models/ holds no TFLite files yet")
@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_are_packed(file: Path) -> None:
    content = file.read_bytes()
    assert pack(content) == content
    assert len(content) <= 60_000
    assert all(place % 16 == 0 for place in constants(content))
