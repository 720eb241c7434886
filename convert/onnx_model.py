"""A network as an ONNX model: read it, fix its sizes, run it with ONNX Runtime."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from convert.calibration import Floats, InputShape
from convert.export import INPUT, OUTPUT
from convert.verify.parity import Step, merge_steps
from glioslice.errors import GliosliceError

WEIGHTED_NODES = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
SILENT = 4
"""The log level of ONNX Runtime that shows only fatal errors."""


def read_onnx(path: Path) -> Any:
    """Return the model in a file; raises GliosliceError if it is not one or holds an unknown op."""
    import onnx

    path.read_bytes()  # a missing file raises OSError here
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker share no exception class
        raise GliosliceError(
            f"{path}: not an ONNX model that onnx {onnx.__version__} reads ({error}); export it "
            "again"
        ) from None
    return model


def prepare_onnx(model: Any, shape: InputShape | None) -> tuple[Any, InputShape]:
    """Return the model ready for conversion, and its input's channels, rows and columns.

    Its input is called INPUT and has fixed sizes and a batch of 1, its output is called OUTPUT.
    Raises GliosliceError if it has several inputs or outputs, open sizes, sizes other than
    `shape`, or weights that are not finite.
    """
    import onnx

    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    for values, what in ((inputs, "input"), (graph.output, "output")):
        if len(values) != 1:
            named = ", ".join(value.name for value in values)
            raise GliosliceError(f"it has {len(values)} {what}s ({named}); export it with one")
    _check_finite(model)
    sizes = _sizes(inputs[0], shape)
    for dimension, size in zip(inputs[0].type.tensor_type.shape.dim, (1, *sizes), strict=True):
        dimension.dim_value = size
    graph.output[0].type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    _rename(graph, inputs[0].name, graph.output[0].name)
    return onnx.shape_inference.infer_shapes(model, data_prop=True), sizes


def make_runner(model: Any) -> Callable[[Floats], Floats]:
    """Return a function that runs a prepared model: (1, C, H, W) to its output.

    Raises GliosliceError if ONNX Runtime rejects the model.
    """
    session = _session(model)

    def run(batch: Floats) -> Floats:
        [output] = session.run([OUTPUT], {INPUT: batch})
        return np.asarray(output)

    return run


def onnx_steps(model: Any, slices: Floats) -> list[list[Step]]:
    """Return the steps of a prepared model for each of the slices (N, H, W, C)."""
    import onnx

    exposed = onnx.ModelProto.FromString(model.SerializeToString())
    makers = {
        name: node
        for node in exposed.graph.node
        for name in node.output
        if name and node.op_type != "Constant"
    }
    exposed.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in makers if name != OUTPUT
    )
    session = _session(exposed)
    names = list(makers)

    def steps(one: Floats) -> Iterator[Step]:
        values = session.run(names, {INPUT: np.moveaxis(one, -1, 0)[np.newaxis]})
        for name, value in zip(names, values, strict=True):
            if getattr(value, "dtype", None) == np.float32 and value.ndim > 1:
                kind = makers[name].op_type
                last = np.moveaxis(value, 1, -1)
                yield Step((node_label(makers[name]),), (kind,), last, kind in WEIGHTED_NODES)

    return [
        [Step(s.names[:1], s.kinds, s.output, s.weighted) for s in merge_steps(steps(one))]
        for one in slices
    ]


def node_label(node: Any) -> str:
    """Return a node's label: the path of its torch module if it has one, or its name."""
    parts = [part for part in node.name.split("/") if part]
    if len(parts) > 1 and parts[-1].startswith(node.op_type):
        parts.pop()
    path: list[str] = []
    for part in parts:  # encoder/encoder.0/act: each level may repeat the one above
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path) or str(node.output[0])


def _session(model: Any) -> Any:
    onnxruntime: Any = import_module("onnxruntime")  # it has no types
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = 1
    content, on = model.SerializeToString(), ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(content, options, providers=on)
    except Exception as error:  # its errors share no narrower class
        raise GliosliceError(f"ONNX Runtime rejects the network: {error}") from None


def _sizes(value: Any, shape: InputShape | None) -> InputShape:
    """Return channels, rows and columns of an input, from the file or else from `shape`."""
    import onnx

    kind = value.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT or len(kind.shape.dim) != 4:
        raise GliosliceError(
            f"its input {value.name} is not float32 of (1, channels, rows, columns); export it so"
        )
    found = [int(dimension.dim_value) for dimension in kind.shape.dim]  # 0 where it is open
    if found[0] > 1:
        raise GliosliceError(f"it takes batches of {found[0]}; export it with a batch of 1")
    sizes = found[1:] if shape is None else list(shape)
    if 0 in sizes:
        open_shape = ", ".join(str(size or "open") for size in found)
        raise GliosliceError(
            f"its input is of ({open_shape}); give all sizes: --input-shape 1,CHANNELS,ROWS,COLUMNS"
        )
    if any(own not in (0, size) for own, size in zip(found[1:], sizes, strict=True)):
        raise GliosliceError(
            f"its input is of (1, {', '.join(map(str, found[1:]))}), not of (1, "
            f"{', '.join(map(str, sizes))}); leave --input-shape out"
        )
    return sizes[0], sizes[1], sizes[2]


def _check_finite(model: Any) -> None:
    import onnx

    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        tensors += [a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
    for tensor in tensors:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise GliosliceError(f"{tensor.name} holds NaN or infinite weights; train again")


def _rename(graph: Any, input_name: str, output_name: str) -> None:
    """Give input and output the converter's names; a tensor that had such a name gets another."""
    names = {name: f"{name}_" for name in (INPUT, OUTPUT)} | {
        input_name: INPUT,
        output_name: OUTPUT,
    }
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
