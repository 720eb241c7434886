"""The reader compared with the schema's own, and files that are foreign or damaged."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from glioslice.errors import GliosliceError
from glioslice.model_card import SHIPPED_MODELS, shipped_folder
from tests.oracle import interpreter
from tests.oracle.small_files import SmallFile, packed, random_int8
from tests.oracle.tflite_reader import OPS, OPTIONS, TYPES, OracleGraph, read_graph

SHAPE = (1, 6, 5, 3)


def everything() -> bytes:
    """A file with every op that is known."""
    rng = np.random.default_rng(0)
    file = SmallFile()

    def filters(*shape: int) -> list[int]:
        count = shape[0] if shape[0] > 1 else shape[3]
        scales = rng.uniform(0.01, 0.02, count).astype(np.float32)
        bias = rng.integers(-99, 99, count, dtype=np.int32)
        return [file.constant(random_int8(rng, shape), scales), file.constant(bias, scales / 2)]

    def image(*shape: int, scale: float = 0.5) -> int:
        return file.tensor(shape, scale, -3)

    strides = {"strideH": 1, "strideW": 1}
    x = image(*SHAPE)
    a = file.op("CONV_2D", [x, *filters(4, 3, 3, 3)], image(1, 6, 5, 4), **strides)
    b = file.op("DEPTHWISE_CONV_2D", [a, *filters(1, 3, 3, 4)], image(1, 6, 5, 4), **strides)
    c = file.op("ADD", [a, b], image(1, 6, 5, 4), fusedActivationFunction=1)
    square = {"strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
    d = file.op("MAX_POOL_2D", [c], image(1, 3, 3, 4), **square)
    e = file.op("AVERAGE_POOL_2D", [d], image(1, 2, 2, 4), **square)
    size = file.constant(np.array([3, 3], np.int32))
    f = file.op("RESIZE_NEAREST_NEIGHBOR", [e, size], image(1, 3, 3, 4))
    size = file.constant(np.array([3, 3], np.int32))
    f = file.op("RESIZE_BILINEAR", [f, size], image(1, 3, 3, 4))
    g = file.op("CONCATENATION", [f, d], image(1, 3, 3, 8), axis=3)
    widths = file.constant(np.array([[0, 0], [1, 0], [0, 1], [0, 0]], np.int32))
    h = file.op("PAD", [g, widths], image(1, 4, 4, 8))
    file.op("QUANTIZE", [h], image(1, 4, 4, 8, scale=0.25))
    return file.content()


EVERYTHING = everything()
DEPRECATED = ("new_height", "new_width")
"""Options that the schema has removed; their fields are still reserved."""


def camel(option: str) -> str:
    """The name of an option in the schema's own reader."""
    names = {"activation": "fusedActivationFunction", "half_pixel_centers": "halfPixelCenters"}
    names |= {"align_corners": "alignCorners", "depth_multiplier": "depthMultiplier"}
    for side, word in (("w", "Width"), ("h", "Height")):
        names[f"stride_{side}"] = f"stride{side.upper()}"
        names[f"dilation_{side}"] = f"dilation{side.upper()}Factor"
        names[f"filter_{side}"] = f"filter{word}"
    return names.get(option, option)


def assert_as_the_schema_reads_it(content: bytes, graph: OracleGraph) -> None:
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    [main] = model.subgraphs
    assert [graph.input.index, graph.output.index] == [*main.inputs, *main.outputs]
    assert len(graph.tensors) == len(main.tensors)
    for own, tensor in zip(graph.tensors, main.tensors, strict=True):
        assert own.shape == tuple(tensor.shape)
        assert own.dtype == TYPES[tensor.type]
        data, quantization = model.buffers[tensor.buffer].data, tensor.quantization
        assert (own.data is None) == (data is None)
        assert own.data is None or own.data.tobytes() == data.tobytes()
        scaled = quantization is not None and quantization.scale is not None
        np.testing.assert_array_equal(own.scales, quantization.scale if scaled else [])
        np.testing.assert_array_equal(own.zero_points, quantization.zeroPoint if scaled else [])
    for op, operator in zip(graph.ops, main.operators, strict=True):
        code = model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        assert getattr(schema.BuiltinOperator, op.name) == number
        assert [t.index for t in op.inputs] == list(operator.inputs)
        assert [op.output.index] == list(operator.outputs)
        for name, value in op.options.items():
            if name not in DEPRECATED:
                assert getattr(operator.builtinOptions, camel(name)) == value


@pytest.mark.parametrize("size", SHIPPED_MODELS)
def test_shipped_files_are_read_as_the_schema_reads_them(size: str) -> None:
    content = (shipped_folder(size) / f"{size}-int8.tflite").read_bytes()
    assert_as_the_schema_reads_it(content, read_graph(content))


def test_every_op_is_read_as_the_schema_reads_it() -> None:
    graph = interpreter.load(EVERYTHING)
    assert_as_the_schema_reads_it(EVERYTHING, graph)
    assert {op.name for op in graph.ops} == set(interpreter.KERNELS)
    assert set(OPTIONS) <= set(interpreter.KERNELS) <= set(OPS.values())
    with pytest.raises(ValueError, match="read-only"):
        graph.ops[0].inputs[1].data[0] = 0  # type: ignore[index]


def test_names_are_those_of_the_schema() -> None:
    assert {number: getattr(schema.BuiltinOperator, name) for number, name in OPS.items()} == {
        number: number for number in OPS
    }


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(EVERYTHING) - 1), st.integers(0, 255)), max_size=3),
    st.integers(0, 8) | st.integers(0, len(EVERYTHING)),
)
def test_a_damaged_file_raises_nothing_else(changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(EVERYTHING)
    for place, value in changes:
        content[place] = value
    damaged = bytes(content[: len(content) - cut])
    try:
        output = interpreter.invoke(damaged, np.zeros(SHAPE, np.int8))
    except GliosliceError as error:
        assert "\n" not in str(error)
        return
    assert output.dtype == np.int8


def set_all(part: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(part, name, value)


CONV, POOL, JOIN, FILTER = 0, 3, 7, 1  # ops of EVERYTHING and a tensor
DAMAGE: dict[str, Callable[[Any, Any], Any]] = {
    "holds 2 graphs": lambda model, main: model.subgraphs.append(main),
    "has 2 outputs": lambda model, main: set_all(main, outputs=[main.outputs[0], 0]),
    "the input is no tensor": lambda model, main: set_all(main, inputs=[999]),
    "the input is a constant": lambda model, main: set_all(main, inputs=[FILTER]),
    "nothing writes the output": lambda model, main: set_all(main, outputs=[FILTER]),
    "op 0, QUANTIZE, reads what nothing": lambda model, main: main.operators.reverse(),
    "writes what is there": lambda model, main: set_all(main.operators[POOL], outputs=[0]),
    "op 0 has the code 77": lambda model, main: set_all(main.operators[CONV], opcodeIndex=77),
    "op 0 reads or writes": lambda model, main: set_all(main.operators[CONV], inputs=[0, 1, 999]),
    "leaves out an input": lambda model, main: set_all(main.operators[CONV], inputs=[0, -1, 2]),
    "has 0 outputs": lambda model, main: set_all(main.operators[CONV], outputs=[]),
    "is not of its size": lambda model, main: set_all(main.tensors[FILTER], shape=[4, 3, 3, 4]),
    r"a tensor is of \(1, 0\)": lambda model, main: set_all(main.tensors[0], shape=[1, 0]),
    r"\(65536, 65536\)": lambda model, main: set_all(main.tensors[0], shape=[65536, 65536]),
    "has the buffer 99": lambda model, main: set_all(main.tensors[FILTER], buffer=99),
    "behind the flatbuffer": lambda model, main: set_all(model.buffers[1], offset=4096),
    "tensor 0 has no sane scale": lambda model, main: set_all(
        main.tensors[0].quantization, scale=np.array([np.nan], np.float32)
    ),
    "tensor 1 has no sane scale": lambda model, main: set_all(
        main.tensors[FILTER].quantization, zeroPoint=np.array([0], np.int64)
    ),
    "CONV_2D, has a filter of the wrong": lambda model, main: set_all(
        main.operators[CONV], inputs=[0, 4, 2]
    ),
    "MAX_POOL_2D, has an output with another scale": lambda model, main: set_all(
        main.tensors[main.operators[POOL].outputs[0]].quantization,
        scale=np.array([0.25], np.float32),
    ),
    "CONCATENATION, has an output with another scale": lambda model, main: set_all(
        main.tensors[main.operators[JOIN].outputs[0]].quantization,
        zeroPoint=np.array([5], np.int64),
    ),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_a_damaged_file_is_refused(message: str) -> None:
    model = schema.ModelT.InitFromPackedBuf(EVERYTHING, 0)
    DAMAGE[message](model, model.subgraphs[0])
    with pytest.raises(GliosliceError, match=message):
        interpreter.invoke(packed(model), np.zeros(SHAPE, np.int8))


@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\x03\x04 a zip file", bytes(100)])
def test_a_foreign_file_is_refused(content: bytes) -> None:
    with pytest.raises(GliosliceError, match="not a TFLite file"):
        interpreter.load(content)


def test_a_float_file_is_refused() -> None:
    content = (shipped_folder("nano") / "nano-fp16.tflite").read_bytes()
    with pytest.raises(GliosliceError, match=r"tensor 0 is of the schema's type 0.* only int8"):
        interpreter.load(content)


def test_an_op_without_a_kernel_is_named() -> None:
    file = SmallFile()
    x = file.tensor(SHAPE)
    file.op("RELU", [file.op("ADD", [x, x], file.tensor(SHAPE))], file.tensor(SHAPE))
    with pytest.raises(GliosliceError, match=r"^op 1, RELU, has no kernel here"):
        interpreter.load(file.content())


@pytest.mark.parametrize(
    ("name", "inputs", "shape", "options", "message"),
    [
        ("ADD", 1, SHAPE, {}, "other inputs or another output than int8"),
        ("ADD", 2, (1, 6, 5, 4), {}, r"gives \(1, 6, 5, 3\), but the file has \(1, 6, 5, 4\)"),
        ("ADD", 2, SHAPE, {"fusedActivationFunction": 4}, "an activation that is not RELU"),
        ("CONCATENATION", 2, SHAPE, {"axis": 4}, "cannot be computed"),
        ("MAX_POOL_2D", 1, SHAPE, {"filterHeight": 2, "filterWidth": 2}, "a window that no kernel"),
        (
            *("MAX_POOL_2D", 1, SHAPE),
            {"filterHeight": 9, "filterWidth": 1, "strideH": 1, "strideW": 1, "padding": 1},
            "a window larger than the image",
        ),
    ],
)
def test_an_op_whose_tensors_do_not_match_is_named(
    name: str, inputs: int, shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    file = SmallFile()
    x = file.tensor(SHAPE)
    file.op(name, [x] * inputs, file.tensor(shape), **options)
    with pytest.raises(GliosliceError, match=rf"^op 0, {name}, .*{message}"):
        interpreter.invoke(file.content(), np.zeros(SHAPE, np.int8))


@pytest.mark.parametrize(
    "x", [np.zeros((1, 6, 5, 4), np.int8), np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.float32)]
)
def test_another_input_is_refused(x: Any) -> None:
    with pytest.raises(GliosliceError, match=r"the network takes int8 \(1, 6, 5, 3\)"):
        interpreter.invoke(EVERYTHING, x)
