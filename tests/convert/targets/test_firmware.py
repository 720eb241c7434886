import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from convert.targets import firmware
from convert.targets.firmware_layers import FirmwareLayer, read_layers
from convert.targets.firmware_plan import Form, make_plan
from convert.tflite.reader import read_model
from device.engine import Engine
from glioslice.errors import GliosliceError
from glioslice.model_card import read_card, shipped_folder
from tests.convert.targets.graphs import GraphBuilder
from tests.oracle.fixed_point import to_multiplier
from tests.oracle.interpreter import load

FILES = {
    size: (shipped_folder(size) / f"{size}-int8.tflite").read_bytes()
    for size in ("compact", "nano")
}


def layers_of(size: str) -> tuple[FirmwareLayer, ...]:
    return read_layers(read_model(FILES[size]))


@pytest.mark.parametrize("size", FILES)
def test_layers_are_those_of_the_file(size: str) -> None:
    layers, ops = layers_of(size), load(FILES[size]).ops
    assert [layer.tensor for layer in layers[1:]] == [
        op.output.index for op in ops if op.name != "PAD"
    ]
    macs = sum(
        op.output.shape[1] * op.output.shape[2] * op.inputs[1].data.size
        for op in ops
        if op.name == "CONV_2D" and op.inputs[1].data is not None
    )
    assert firmware.layer_macs(layers) == macs


def test_what_fits_in_memory() -> None:
    compact = firmware.check(FILES["compact"], "compact-int8")
    assert compact.ok and set(compact.files) == {firmware.HEADER, firmware.SOURCE}
    forms = compact.report["forms"]
    assert forms["fast"]["arena_bytes"] <= 187 * 1024
    assert forms["small"]["arena_bytes"] <= 73 * 1024
    assert forms["small"]["macs"] > forms["fast"]["macs"] == 60_579_840
    nano = firmware.check(FILES["nano"], "nano-int8")
    assert nano.ok and [form["fits"] for form in nano.report["forms"].values()] == [False, True]
    assert b'#error "this form needs 2' in nano.files[firmware.HEADER]
    assert b"NETWORK_PASSES_OVERLAP = 1" in nano.files[firmware.HEADER]
    assert b"NETWORK_PASSES_OVERLAP = 0" in compact.files[firmware.HEADER]
    for text in compact.files.values():
        assert b"for research use" in text and b"not a medical device" in text


def test_a_network_that_needs_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware, "MAX_RAM", 60_000)
    result = firmware.check(FILES["compact"], "compact")
    assert not result.ok and not result.files
    assert re.fullmatch(r"it needs 7\d,\d{3} bytes of RAM, more than 60,000", result.problems)


@pytest.mark.parametrize("form", ["fast", "small"])
@pytest.mark.parametrize("size", FILES)
def test_every_row_is_in_memory_when_it_is_read(size: str, form: Form) -> None:
    """Follow the plan with a memory that knows which row each byte belongs to."""
    plan = make_plan(layers_of(size), form)
    memory = np.full((plan.arena, 2), -1)

    def place(number: int, row: int) -> slice:
        ring, layer = plan.rings[number], plan.layers[number]
        start = ring.offset + row % ring.depth * layer.row_bytes
        assert start % 4 == 0 and start + layer.row_bytes <= plan.arena
        return slice(start, start + layer.row_bytes)

    if form == "fast":
        for row in range(plan.layers[0].rows):
            memory[place(0, row)] = 0, row
    computed = [0] * len(plan.layers)
    for number in plan.steps:
        layer, row = plan.layers[number], computed[number]
        for source in layer.sources:
            for needed in layer.rows_needed(row, plan.layers[source]):
                assert (memory[place(source, needed)] == (source, needed)).all()
        memory[place(number, row)] = number, row
        computed[number] += 1
    assert computed[-1] == plan.layers[-1].rows == 160


def test_passes_of_the_small_form_follow_each_other() -> None:
    plan = make_plan(layers_of("compact"), "small")
    inputs = [i for i, layer in enumerate(plan.layers) if layer.kind == "input"]
    assert [plan.repeated[i] for i in inputs] == [0, 0]
    order = [number for number in plan.steps if number in inputs]
    assert order == sorted(order) and len(order) == 2 * 160
    assert not plan.passes_overlap


def test_factors_are_those_of_the_reference_kernels() -> None:
    rng = np.random.default_rng(0)
    seen = 0
    for size in FILES:
        model = read_model(FILES[size])
        scramble_scales(model, rng)
        for layer in read_layers(model):
            if layer.weights is None:
                continue
            tensors = model.subgraphs[0].tensors
            [op] = [o for o in model.subgraphs[0].operators if o.outputs[0] == layer.tensor]
            scales = [tensors[i].quantization.scale for i in (*op.inputs[:2], layer.tensor)]
            product = scales[0].astype(np.float64) * scales[1].astype(np.float64)
            by = to_multiplier(product / scales[2].astype(np.float64))
            found = layer.weights.rescalings
            assert [r.multiplier for r in found] == by.mantissa.tolist()
            assert [-r.shift for r in found] == by.exponent.tolist()
            seen += len({r.shift for r in found})
    assert seen > 60


def scramble_scales(model: Any, rng: np.random.Generator) -> None:
    """Give filters other scales, such that sums are multiplied by numbers from 2^-22 to 1."""
    graph = model.subgraphs[0]
    for op in graph.operators:
        name = model.operatorCodes[op.opcodeIndex].builtinCode
        if name == schema.BuiltinOperator.CONV_2D:
            given, filters, biases = (graph.tensors[i] for i in op.inputs)
            ratio = graph.tensors[op.outputs[0]].quantization.scale[0] / given.quantization.scale[0]
            count = len(filters.quantization.scale)
            scale = 2 ** rng.uniform(-21.9, -1.1, count) * ratio
            filters.quantization.scale = scale.astype(np.float32)
            biases.quantization.scale = (scale * given.quantization.scale[0]).astype(np.float32)


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def op_of(model: Any, kind: str, place: int) -> Any:
    number = getattr(schema.BuiltinOperator, kind)
    ops = [
        op
        for op in model.subgraphs[0].operators
        if model.operatorCodes[op.opcodeIndex].builtinCode == number
    ]
    return ops[place]


def output_of(model: Any, kind: str, place: int) -> Any:
    return model.subgraphs[0].tensors[op_of(model, kind, place).outputs[0]]


def set_options(kind: str, place: int, **values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        vars(op_of(model, kind, place).builtinOptions).update(values)

    return change


def set_zero_point(kind: str, place: int, zero: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        output_of(model, kind, place).quantization.zeroPoint = np.array([zero], np.int64)

    return change


def set_scale(kind: str, place: int, scale: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        output_of(model, kind, place).quantization.scale = np.array([scale], np.float32)

    return change


def set_constant(kind: str, place: int, number: int, value: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = model.subgraphs[0].tensors[op_of(model, kind, place).inputs[number]]
        data = model.buffers[tensor.buffer].data.copy()
        data.view(np.int32)[:] = value
        model.buffers.append(schema.BufferT(data=data))
        tensor.buffer = len(model.buffers) - 1

    return change


def drop_options(model: Any) -> None:
    op = op_of(model, "CONV_2D", 5)
    op.builtinOptions, op.builtinOptionsType = None, 0


def swap_options(model: Any) -> None:
    op = op_of(model, "ADD", 0)
    op.builtinOptions = schema.Conv2DOptionsT()
    op.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions


def unsupported_op(model: Any) -> None:
    op = op_of(model, "RESIZE_BILINEAR", 0)
    model.operatorCodes.append(schema.OperatorCodeT(127, builtinCode=schema.BuiltinOperator.GELU))
    op.opcodeIndex = len(model.operatorCodes) - 1


def read_too_late(model: Any) -> None:
    op = op_of(model, "MAX_POOL_2D", 0)
    op.inputs = np.array([model.subgraphs[0].outputs[0]], np.int32)


RELU6 = schema.ActivationFunctionType.RELU6
REFUSED = {
    "a zero point above the lowest value": (set_zero_point("CONV_2D", 3, -127), "op 5, CONV_2D"),
    "a sum of other zero points": (set_zero_point("ADD", 1, -127), "op 21, ADD"),
    "a pool with another zero point": (set_zero_point("MAX_POOL_2D", 0, -127), "op 3, MAX_POOL_2D"),
    "a resize with another scale": (
        set_scale("RESIZE_BILINEAR", 2, 0.5), "op 24, RESIZE_BILINEAR",
    ),
    "an activation with an upper end": (
        set_options("CONV_2D", 2, fusedActivationFunction=RELU6), "op 4, CONV_2D",
    ),
    "a dilation": (set_options("CONV_2D", 1, dilationWFactor=2), "op 2, CONV_2D"),
    "a stride": (set_options("CONV_2D", 1, strideW=2), "op 2, CONV_2D"),
    "half-pixel centres": (
        set_options("RESIZE_BILINEAR", 0, halfPixelCenters=True), "op 16, RESIZE_BILINEAR",
    ),
    "a window of a pool": (
        set_options("MAX_POOL_2D", 2, filterHeight=3), "op 9, MAX_POOL_2D",
    ),
    "an activation of a sum": (
        set_options("ADD", 3, fusedActivationFunction=RELU6), "op 29, ADD",
    ),
    "other widths of padding": (set_constant("PAD", 0, 1, 1), "op 0, PAD"),
    "another factor of a resize": (
        set_constant("RESIZE_BILINEAR", 4, 1, 160), "op 32, RESIZE_BILINEAR",
    ),
    "a bias beyond 30 bits": (set_constant("CONV_2D", 6, 2, 1 << 30), "op 10, CONV_2D"),
    "a factor above one": (set_scale("CONV_2D", 18, 1e-9), "op 31, CONV_2D"),
    "a factor that is too small": (set_scale("CONV_2D", 18, 1e9), "op 31, CONV_2D"),
    "options of another op": (swap_options, "op 17, ADD"),
    "an op without a kernel": (unsupported_op, "op 16, GELU"),
    "no options": (drop_options, "op 8, CONV_2D"),
    "an op that reads what comes later": (read_too_late, "op 3, MAX_POOL_2D"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_its_name(name: str) -> None:
    change, op = REFUSED[name]
    model = read_model(FILES["compact"])
    change(model)
    result = firmware.check(packed(model), "changed")
    assert not result.ok and not result.files
    assert re.match(rf"{op}( \(.*\))?: ", result.problems)
    assert "\n" not in result.problems


@pytest.mark.parametrize("kind", ["RELU", "MAX_POOL_2D"])
def test_other_networks_are_refused(kind: str) -> None:
    graph = GraphBuilder(1, 8, 8, 4)
    options = None if kind == "RELU" else schema.Pool2DOptionsT(0, 2, 2, 2, 2)
    graph.op(kind, [0], 1, 8 if kind == "RELU" else 4, 4, 4, options=options)
    result = firmware.check(graph.content, "x")
    assert not result.ok
    assert f"op 0, {kind} (t1): " in result.problems


def test_a_network_without_skip_connections_is_computed_once() -> None:
    encoder = layers_of("compact")[:5]
    plan = make_plan(encoder, "small")
    assert len(plan.layers) == 5
    assert plan.arena < make_plan(encoder, "fast").arena


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "net.tflite", tmp_path / "out"
    source.write_bytes(FILES["compact"])
    firmware.main([str(source), "--out", str(out)])
    assert sorted(path.name for path in out.iterdir()) == [firmware.SOURCE, firmware.HEADER]
    model = read_model(FILES["compact"])
    set_zero_point("CONV_2D", 3, 5)(model)
    source.write_bytes(packed(model))
    with pytest.raises(SystemExit) as exit_:
        firmware.main([str(source), "--out", str(tmp_path / "other")])
    assert exit_.value.code == 2
    assert "net.tflite: op 5, CONV_2D: " in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_the_hello_comes_from_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a card beside the file, as in `test_command`, there is none."""
    folder = shipped_folder("compact")
    file = folder / "compact-int8.tflite"
    firmware.main([str(file), "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / firmware.MODEL).read_text()
    assert '#define MODEL_NAME "compact"' in text
    assert f"MODEL_CLIP {float(read_card(folder).clip)!r}f" in text


@pytest.mark.parametrize("name", ["x" * 17, "two words", 'a"b', "a*/b", ""])
def test_a_name_that_the_hello_or_c_cannot_hold_is_refused(name: str) -> None:
    engine = Engine(shipped_folder("compact") / "compact-int8.tflite")
    engine.card = replace(engine.card, name=name)
    with pytest.raises(GliosliceError, match="the model's name"):
        firmware.model_header(engine)


def test_the_same_tables_each_time() -> None:
    assert firmware.check(FILES["nano"], "x") == firmware.check(FILES["nano"], "x")


def test_a_damaged_file_is_an_error() -> None:
    with pytest.raises(GliosliceError, match="damaged"):
        firmware.check(FILES["compact"][:5000], "x")
