import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from convert.targets.coral import MAPPED, CompilerRow, check, read_log
from tests.convert.targets.graphs import FLOAT, INT32, GraphBuilder, numbers
from tests.oracle.interpreter import load

SHIPPED = sorted((Path(__file__).resolve().parents[3] / "models").glob("*/*-int8.tflite"))
RELU = schema.ActivationFunctionType.RELU


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.name)
def test_shipped_int8_files_pass(file: Path) -> None:
    content = file.read_bytes()
    result = check(content, file.stem)
    assert result.ok
    assert {entry["verdict"] for entry in result.report["ops"]} == {"listed", "perhaps"}
    ops = len(load(content).ops)
    assert dict(result.rows)["documented list"] == f"{ops} of {ops} ops pass"


def test_there_are_shipped_files() -> None:
    assert len(SHIPPED) == 2


def reasons(graph: GraphBuilder) -> str:
    """All reasons and remedies of all rejected ops."""
    result = check(graph.content, "x")
    refused = [entry for entry in result.report["ops"] if entry["verdict"] == "refused"]
    assert result.ok == (not refused)
    return "; ".join(f"{r['why']} -> {r['mend']}" for entry in refused for r in entry["refusals"])


def test_a_plain_convolution_passes() -> None:
    graph = GraphBuilder(1, 8, 8, 4)
    graph.conv(0, 4, 6, 6)
    assert reasons(graph) == ""


def pool(activation: int = 0) -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, 4)
    options = schema.Pool2DOptionsT(
        strideH=2, strideW=2, filterHeight=2, filterWidth=2, fusedActivationFunction=activation
    )
    graph.op("MAX_POOL_2D", [0], 1, 4, 4, 4, options=options, version=2)
    return graph


def concatenation(activation: int = 0, fill: int | None = None, inputs: int = 2) -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, 4)
    others = [0] * (inputs - 1)
    if fill is not None:
        others[0] = graph.constant(np.full((1, 8, 8, 4), fill, np.int8))
    options = schema.ConcatenationOptionsT(axis=3, fusedActivationFunction=activation)
    graph.op("CONCATENATION", [0, *others], 1, 8, 8, 4 * inputs, options=options, version=2)
    return graph


def convolution(**changes: int) -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, 4)
    graph.conv(0, 4, 4, 4, **changes)
    return graph


def padded(batch: int) -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, 4)
    paddings = graph.constant(numbers([batch, 0], [1, 1], [1, 1], [0, 0]))
    graph.op("PAD", [0, paddings], 1 + batch, 10, 10, 4, version=2)
    return graph


def resized(kind: str = "RESIZE_NEAREST_NEIGHBOR", half: bool = False) -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, 4)
    sizes = graph.constant(numbers(16, 16))
    make = {
        "RESIZE_NEAREST_NEIGHBOR": schema.ResizeNearestNeighborOptionsT,
        "RESIZE_BILINEAR": schema.ResizeBilinearOptionsT,
    }[kind]
    version = 3 if half else 2
    graph.op(kind, [0, sizes], 1, 16, 16, 4, options=make(halfPixelCenters=half), version=version)
    return graph


def reduced(kind: str, axes: list[int], channels: int = 4) -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, channels)
    places = graph.constant(numbers(*axes))
    options = schema.ReducerOptionsT(keepDims=True)
    graph.op(kind, [0, places], 1, 1, 1, channels, options=options, version=2)
    return graph


def dense(outputs: int, rows: int = 1, shuffled: int = 0) -> GraphBuilder:
    graph = GraphBuilder(rows, 8)
    weights = graph.constant(np.ones((outputs, 8), np.int8))
    options = schema.FullyConnectedOptionsT(weightsFormat=shuffled)
    graph.op("FULLY_CONNECTED", [0, weights, -1], rows, outputs, options=options, version=4)
    return graph


def softmax(*shape: int) -> GraphBuilder:
    graph = GraphBuilder(*shape)
    graph.op("SOFTMAX", [0], *shape, options=schema.SoftmaxOptionsT(beta=1.0), version=2)
    return graph


def sliced(stride: int = 1, ellipsis: int = 0) -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, 4)
    parts = [numbers(0, 0, 0, 0), numbers(1, 8, 8, 4), numbers(1, stride, 1, 1)]
    options = schema.StridedSliceOptionsT(ellipsisMask=ellipsis)
    inputs = [0, *(graph.constant(part) for part in parts)]
    graph.op("STRIDED_SLICE", inputs, 1, 8 // stride, 8, 4, options=options, version=2)
    return graph


def prelu(*alpha: int) -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, 4)
    graph.op("PRELU", [0, graph.constant(np.ones(alpha, np.int8))], 1, 8, 8, 4)
    return graph


def split(axis: int) -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, 4)
    place = graph.constant(np.array(axis, np.int32))
    graph.op("SPLIT", [place, 0], 1, 8, 8, 2, options=schema.SplitOptionsT(numSplits=2), version=2)
    return graph


def packed(axis: int) -> GraphBuilder:
    graph = GraphBuilder(1, 8, 4)
    options = schema.PackOptionsT(valuesCount=2, axis=axis)
    shape = (2, 1, 8, 4) if axis == 0 else (1, 2, 8, 4)
    graph.op("PACK", [0, 0], *shape, options=options, version=2)
    return graph


def floating() -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, 4, dtype=FLOAT)
    graph.op("RELU", [0], 1, 8, 8, 4, dtype=FLOAT)
    return graph


def float_constant() -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, 4)
    other = graph.constant(np.ones((1, 1, 1, 4), np.float32))
    graph.op("ADD", [0, other], 1, 8, 8, 4, options=schema.AddOptionsT(), version=2)
    return graph


def wide_integers() -> GraphBuilder:
    graph = GraphBuilder(1, 8)
    graph.op("RELU", [0], 1, 8, dtype=INT32)
    return graph


def open_batch() -> GraphBuilder:
    graph = convolution()
    graph.graph.tensors[0].shapeSignature = [-1, 8, 8, 4]
    return graph


def batch_of_two() -> GraphBuilder:
    graph = GraphBuilder(2, 8, 8, 4)
    graph.op("RELU", [0], 2, 8, 8, 4)
    return graph


def computed_weights() -> GraphBuilder:
    graph = convolution()
    graph.graph.tensors[1].buffer = 0
    return graph


def unlisted(kind: str) -> GraphBuilder:
    graph = GraphBuilder(1, 8, 8, 4)
    graph.op(kind, [0], 1, 8, 8, 4)
    return graph


def newer_version() -> GraphBuilder:
    graph = convolution()
    graph.model.operatorCodes[0].version = 6
    return graph


REFUSED: list[tuple[str, Callable[[], GraphBuilder], str]] = [
    ("unlisted", lambda: unlisted("HARD_SWISH"), "not on the list.*RELU or RELU6"),
    ("leaky", lambda: unlisted("LEAKY_RELU"), "not on the list.*RELU or PRELU"),
    ("unlisted, no advice", lambda: unlisted("FLOOR"), "not on the list.*after the network"),
    ("newer version", newer_version, "version 6 .* newer than 5.*older TensorFlow"),
    ("float", floating, "a tensor of FLOAT32.*8 bits"),
    ("int32", wide_integers, "a tensor of INT32.*8 bits"),
    ("float constant", float_constant, "a constant of FLOAT32.*8 bits"),
    ("open size", open_batch, "not fixed.*fixed sizes"),
    ("batch of two", batch_of_two, "3 innermost dimensions.*batch of 1"),
    ("computed weights", computed_weights, "input 1 is computed.*constant"),
    ("pool with ReLU", lambda: pool(RELU), "fused activation.*op of its own"),
    ("concatenation with ReLU", lambda: concatenation(RELU), "fused activation"),
    ("concatenation of ones", lambda: concatenation(fill=1), "constant among.*all zeros"),
    (
        "concatenation of three with zeros",
        lambda: concatenation(fill=0, inputs=3),
        "constant among.*two inputs",
    ),
    (
        "dilation",
        lambda: convolution(dilationHFactor=2),
        "other dilation in y than in x.*same factor",
    ),
    ("padded batch", lambda: padded(1), "pads the batch"),
    (
        "half-pixel nearest",
        lambda: resized(half=True),
        "operation version not supported.*without them",
    ),
    (
        "half-pixel bilinear",
        lambda: resized("RESIZE_BILINEAR", half=True),
        "operation version not supported.*without them",
    ),
    ("mean of the batch", lambda: reduced("MEAN", [0]), "reduces the batch"),
    ("mean of 6 channels", lambda: reduced("MEAN", [3], 6), "mean over 6 channels.*multiple of 4"),
    ("maximum of the batch", lambda: reduced("REDUCE_MAX", [-4]), "reduces the batch"),
    ("dense of two rows", lambda: dense(4, rows=2), "more than one dimension.*CONV_2D"),
    ("shuffled weights", lambda: dense(4, shuffled=1), "shuffled.*default format"),
    ("softmax of a draw_layers", lambda: softmax(1, 8, 4), "more than one dimension.*CPU"),
    ("softmax of too many", lambda: softmax(1, 16_001), "16,000 elements.*fewer"),
    ("strides", lambda: sliced(stride=2), "strides other than 1"),
    ("ellipsis", lambda: sliced(ellipsis=1), "ellipsis"),
    ("an alpha each place", lambda: prelu(8, 8, 4), "one alpha per pixel.*shared_axes"),
    ("split batch", lambda: split(0), "splits the batch"),
    ("packed batch", lambda: packed(0), "packs the batch"),
]


@pytest.mark.parametrize(
    ("make", "expected"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_each_reason_has_a_remedy(make: Callable[[], GraphBuilder], expected: str) -> None:
    found = reasons(make())
    assert re.search(expected, found), found
    # What changes the batch has a batch other than 1 as well.
    assert found.count("->") == 1 + ("innermost" in found and "innermost" not in expected)


ALLOWED: list[tuple[str, Callable[[], GraphBuilder]]] = [
    ("pool", pool),
    ("concatenation", concatenation),
    ("concatenation with zeros", lambda: concatenation(fill=0)),
    ("dilation", lambda: convolution(dilationHFactor=2, dilationWFactor=2)),
    ("pad", lambda: padded(0)),
    ("nearest", resized),
    ("bilinear", lambda: resized("RESIZE_BILINEAR")),
    ("mean of places", lambda: reduced("MEAN", [1, 2], 6)),
    ("mean of channels", lambda: reduced("MEAN", [3])),
    ("maximum", lambda: reduced("REDUCE_MAX", [3], 6)),
    ("dense", lambda: dense(4)),
    ("softmax", lambda: softmax(1, 16_000)),
    ("slice", sliced),
    ("alpha", lambda: prelu(1, 1, 4)),
    ("split", lambda: split(3)),
    ("pack", lambda: packed(1)),
    ("logistic", lambda: unlisted("LOGISTIC")),
]


@pytest.mark.parametrize("make", [a[1] for a in ALLOWED], ids=[a[0] for a in ALLOWED])
def test_documented_ops_pass(make: Callable[[], GraphBuilder]) -> None:
    assert reasons(make()) == ""


@pytest.mark.slow
def test_keras_resizes_in_a_way_that_is_rejected() -> None:
    from tests.convert.keras_networks import converted

    def upsampled(layers: Any, x: Any) -> Any:
        return layers.Conv2D(4, 3)(layers.UpSampling2D(2)(x))

    result = check(converted(upsampled, (8, 8, 4), "int8"), "x")
    assert result.report["ops"][0]["verdict"] == "refused"
    assert "half-pixel centres (resize without them)" in result.table


def test_all_ops_after_the_first_rejected_one_run_on_the_cpu() -> None:
    graph = GraphBuilder(1, 8, 8, 4)
    last = graph.op("RELU", [0], 1, 8, 8, 4)
    last = graph.op("HARD_SWISH", [last], 1, 8, 8, 4)
    graph.op("RELU", [last], 1, 8, 8, 4)
    result = check(graph.content, "x")
    verdicts = [entry["verdict"] for entry in result.report["ops"]]
    assert verdicts == ["listed", "refused", "on the CPU, behind a refused op"]
    assert ("on the CPU", "2 ops: the first rejected and all after it") in result.rows
    assert ("documented list", "2 of 3 ops pass") in result.rows


def test_without_a_compiler_nothing_is_compiled() -> None:
    result = check(SHIPPED[0].read_bytes(), "x")
    assert result.report["compiler"] is None
    assert result.ok and not result.verified
    assert result.table.startswith("coral: not verified\n")
    assert result.entry["verified"] is False
    assert not result.files
    assert "not compiled" in result.table


LOG = f"""Edge TPU Compiler version 16.0.384591198
Input: x.tflite
Output: x_edgetpu.tflite

Operator                       Count      Status

ADD                            3          {MAPPED}
RESIZE_NEAREST_NEIGHBOR        2          Operation version not supported
CONV_2D                        15         {MAPPED}
CONV_2D                        1          More than one subgraph is not supported
"""


def test_a_log_is_read() -> None:
    assert read_log(LOG) == (
        CompilerRow("ADD", 3, MAPPED),
        CompilerRow("RESIZE_NEAREST_NEIGHBOR", 2, "Operation version not supported"),
        CompilerRow("CONV_2D", 15, MAPPED),
        CompilerRow("CONV_2D", 1, "More than one subgraph is not supported"),
    )


def stand_in(folder: Path, log: str | None) -> None:
    """A script in the compiler's place: it writes a log, or fails. It compiles nothing."""
    script = "#!/bin/sh\n"
    if log is None:
        script += "echo 'ERROR: Internal compiler error. Aborting!' >&2\nexit 1\n"
    else:
        script += f"cat > $2/x_edgetpu.log <<'END'\n{log}END\n"
        script += "echo compiled > $2/x_edgetpu.tflite\n"
    (folder / "edgetpu_compiler").write_text(script)
    (folder / "edgetpu_compiler").chmod(0o755)


@pytest.mark.parametrize("all_mapped", [True, False])
def test_a_compilers_log_decides(
    all_mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line for line in LOG.splitlines() if not all_mapped or "not supported" not in line]
    stand_in(tmp_path, "\n".join(lines) + "\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    result = check(SHIPPED[0].read_bytes(), "x")
    assert result.ok is all_mapped
    assert result.verified
    compiled = result.report["compiler"]
    assert compiled["version"] == "16.0.384591198"
    assert compiled["lines"][0] == {"op": "ADD", "count": 3, "status": MAPPED}
    assert set(result.files) == {"x_edgetpu.log", "x_edgetpu.tflite"}
    assert ("Operation version not supported" in result.table) is not all_mapped
    assert "18 ops mapped" in result.table


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, None)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    result = check(SHIPPED[0].read_bytes(), "x")
    assert not result.ok
    assert not result.files
    assert "Internal compiler error" in result.table
