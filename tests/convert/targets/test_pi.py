from pathlib import Path
from typing import Any

import flatbuffers
import pytest
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from convert.pack import pack
from convert.targets import pi
from convert.targets.pi import check
from convert.tflite.reader import read_model
from glioslice.errors import GliosliceError
from tests.convert.keras_networks import NETWORKS, converted
from tests.convert.targets.graphs import GraphBuilder, numbers
from tests.oracle.interpreter import load

SHIPPED = sorted((Path(__file__).resolve().parents[3] / "models").glob("*/*-int8.tflite"))


def written(model: Any) -> bytes:
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return pack(bytes(builder.Output()))


def left_ops(content: bytes) -> list[str]:
    result = check(content, "x")
    names = [entry["op"] for entry in result.report["left"]]
    assert result.ok == (not names)
    assert result.report["taken"] + len(names) == result.report["ops"]
    return names


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.name)
def test_xnnpack_runs_the_arithmetic_of_shipped_files(file: Path) -> None:
    assert set(left_ops(file.read_bytes())) <= {"RESIZE_NEAREST_NEIGHBOR"}


def test_ops_outside_xnnpack_are_found() -> None:
    # XNNPACK has no nearest resize. With bilinear ones the same graph is taken whole.
    content = SHIPPED[0].read_bytes()
    taken = check(content, "x")
    assert taken.ok and taken.report["parts"] == 1
    model = read_model(content)
    bilinear = schema.BuiltinOperator.RESIZE_BILINEAR
    codes = [code.builtinCode for code in model.operatorCodes]
    resizes = [o for o in model.subgraphs[0].operators if codes[o.opcodeIndex] == bilinear]
    code, nearest = model.operatorCodes[codes.index(bilinear)], "RESIZE_NEAREST_NEIGHBOR"
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, nearest)
    for resize in resizes:
        resize.builtinOptionsType = schema.BuiltinOptions.ResizeNearestNeighborOptions
        resize.builtinOptions = schema.ResizeNearestNeighborOptionsT()
    assert resizes and left_ops(written(model)) == [nearest] * len(resizes)


def test_convolutions_without_the_scales_of_their_biases_are_found() -> None:
    model = read_model(SHIPPED[0].read_bytes())
    [graph] = model.subgraphs
    codes = [code.builtinCode for code in model.operatorCodes]
    convolutions = [
        o for o in graph.operators if codes[o.opcodeIndex] == schema.BuiltinOperator.CONV_2D
    ]
    for operator in convolutions:
        graph.tensors[operator.inputs[2]].quantization = None
    result = check(written(model), "x")
    names = [entry["op"] for entry in result.report["left"]]
    assert names.count("CONV_2D") == len(convolutions)
    assert "are the scales of its bias in the file?" in result.table


def test_without_xnnpack_all_ops_are_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_delegates(**options: Any) -> Any:
        kernels = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return litert.Interpreter(**options, experimental_op_resolver_type=kernels)

    content = SHIPPED[0].read_bytes()
    monkeypatch.setattr(pi, "Interpreter", without_delegates)
    result = check(content, "x")
    assert result.report["taken"] == result.report["parts"] == 0
    assert len(result.report["left"]) == result.report["ops"] == len(load(content).ops)


def test_a_file_that_litert_rejects() -> None:
    graph = GraphBuilder(1, 8, 8, 4)
    graph.op("PAD", [0, graph.constant(numbers([9, 9]))], 1, 8, 8, 4)
    with pytest.raises(GliosliceError, match="LiteRT rejects the file"):
        check(graph.content, "x")


@pytest.mark.slow
def test_a_network_between_whose_parts_other_kernels_run() -> None:
    def softened(layers: Any, x: Any) -> Any:
        x = layers.Softmax()(layers.Softmax()(layers.Conv2D(8, 3)(x)))
        side = layers.Conv2D(4, 3)(x)
        return layers.Add()([layers.Conv2D(4, 3)(layers.UpSampling2D(2)(side)), side[:, 0:1, 0:1]])

    content = pack(converted(softened, (16, 16, 4), "int8"))
    assert left_ops(content) == ["SOFTMAX", "SOFTMAX", "RESIZE_NEAREST_NEIGHBOR"]
    assert check(content, "x").report["parts"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("network", ["depthwise", "unet"])
def test_networks_that_xnnpack_runs_whole(network: str) -> None:
    assert left_ops(pack(converted(*NETWORKS[network], "int8"))) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "ops"), [("autoencoder", {"AVERAGE_POOL_2D"}), ("attention", {"BATCH_MATMUL"})]
)
def test_networks_that_xnnpack_runs_in_part(network: str, ops: set[str]) -> None:
    assert set(left_ops(pack(converted(*NETWORKS[network], "int8")))) >= ops
