"""Google Coral: does the Edge TPU run every op of an int8 file?

Each op is checked against the list of supported operations and the limits in "TensorFlow models on
the Edge TPU" (coral.ai/docs/edgetpu/models-intro), for runtime 14, which compiler 16 builds for.
Numbers after "issue" are those of github.com/google-coral/edgetpu, where the compiler's messages
are reported. Where `edgetpu_compiler` is on the PATH, it compiles the file too, and its log
decides. Without it, a file that passes here may still run on the CPU in part.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from convert.targets import TargetResult
from convert.tflite.reader import Op, Tensor, ops_of, read_model

NEWEST_VERSIONS = {
    "ADD": 3,
    "AVERAGE_POOL_2D": 3,
    "CONCATENATION": 3,
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
    "EXPAND_DIMS": 1,
    "FULLY_CONNECTED": 9,
    "L2_NORMALIZATION": 2,
    "LOGISTIC": 3,
    "LSTM": 4,
    "MAXIMUM": 4,
    "MAX_POOL_2D": 3,
    "MEAN": 3,
    "MINIMUM": 4,
    "MUL": 4,
    "PACK": 3,
    "PAD": 3,
    "PRELU": 1,
    "QUANTIZE": 2,
    "REDUCE_MAX": 3,
    "REDUCE_MIN": 3,
    "RELU": 3,
    "RELU6": 3,
    "RELU_N1_TO_1": 1,
    "RESHAPE": 1,
    "RESIZE_BILINEAR": 4,
    "RESIZE_NEAREST_NEIGHBOR": 4,
    "RSQRT": 2,
    "SLICE": 5,
    "SOFTMAX": 3,
    "SPACE_TO_DEPTH": 2,
    "SPLIT": 4,
    "SQUARED_DIFFERENCE": 2,
    "SQUEEZE": 2,
    "STRIDED_SLICE": 5,
    "SUB": 5,
    "SUM": 2,
    "TANH": 3,
    "TRANSPOSE": 5,  # since compiler 16: issue 193
    "TRANSPOSE_CONV": 3,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 3,
}
"""The supported ops, each with its newest version in TensorFlow 2.5, which is of the compiler's
year (TensorFlow's `lite/tools/versioning/runtime_version.cc`). A newer version makes the compiler
reject the whole file: CONV_2D 6 (issue 631), TRANSPOSE_CONV 4 (845), QUANTIZE 3 (879)."""

UNCERTAIN = {
    "RESHAPE": "large tensors may be left on the CPU",
    "RESIZE_BILINEAR": "left on the CPU for some sizes",
    "RESIZE_NEAREST_NEIGHBOR": "left on the CPU for some sizes",
    "TRANSPOSE": "sometimes left on the CPU (issue 433)",
}
"""Supported ops for which the compiler decides by size."""

ALTERNATIVES = {
    "DEQUANTIZE": "let the output be int8",
    "ELU": "use RELU",
    "GELU": "use RELU",
    "HARD_SWISH": "use RELU or RELU6",
    "LEAKY_RELU": "use RELU or PRELU",
    "BATCH_MATMUL": "use CONV_2D or FULLY_CONNECTED with constant weights",
    "DEPTH_TO_SPACE": "use TRANSPOSE_CONV",
    "TILE": "use RESIZE_NEAREST_NEIGHBOR",
}

PARAMETERS = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "EXPAND_DIMS": (1,),
    "FULLY_CONNECTED": (1, 2),
    "MEAN": (1,),
    "PAD": (1,),
    "PRELU": (1,),
    "REDUCE_MAX": (1,),
    "REDUCE_MIN": (1,),
    "RESHAPE": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "SLICE": (1, 2),
    "SPLIT": (0,),
    "STRIDED_SLICE": (1, 2, 3),
    "SUM": (1,),
    "TRANSPOSE": (1,),
    "TRANSPOSE_CONV": (0, 1, 3),
}
"""Inputs that must be constant when the file is compiled."""

Rejection = tuple[str, str]
"""Why an op is rejected, and what to do about it."""

Rule = Callable[[Op], Iterator[Rejection]]

SOFTMAX_ELEMENTS = 16_000
NO_ACTIVATION = schema.ActivationFunctionType.NONE

COMPILER = "edgetpu_compiler"

TIMEOUT = 600
"""Seconds."""

INNERMOST = 3
"""Dimensions that may be larger than 1, from the last."""

EIGHT_BITS = frozenset({"INT8", "UINT8"})
MAPPED = "Mapped to Edge TPU"


def _no_activation(op: Op) -> Iterator[Rejection]:
    if op.options is not None and op.options.fusedActivationFunction != NO_ACTIVATION:
        yield "it has a fused activation", "move the activation into an op of its own, before it"


def _concatenation(op: Op) -> Iterator[Rejection]:
    yield from _no_activation(op)
    constants = [tensor for tensor in op.inputs if tensor is not None and tensor.constant]
    zeros = all(c.values is not None and bool(np.all(c.values == c.zero_point)) for c in constants)
    if constants and (len(op.inputs) != 2 or not zeros):
        yield "a constant among its inputs", "concatenate two inputs, the constant all zeros"


def _equal_dilation(op: Op) -> Iterator[Rejection]:
    if op.options is not None and op.options.dilationHFactor != op.options.dilationWFactor:
        yield "other dilation in y than in x", "dilate by the same factor both ways"


def _fully_connected(op: Op) -> Iterator[Rejection]:
    if op.options is not None and op.options.weightsFormat:
        yield "shuffled weights", "convert with weights in the default format"
    if sum(size > 1 for size in op.outputs[0].shape) > 1:
        yield "its output has more than one dimension", "use a 1 x 1 CONV_2D, or flatten before it"


def _not_batch(op: Op, axes: Iterable[int], verb: str) -> Iterator[Rejection]:
    rank = len(op.outputs[0].shape if op.name == "PACK" else _main_input(op).shape)
    if rank and any(axis % rank == 0 for axis in axes):
        yield f"it {verb}s the batch dimension", f"{verb} other dimensions than the first"


def _reduce(op: Op) -> Iterator[Rejection]:
    axes = [int(axis) for axis in np.ravel(_constant(op, 1))]
    yield from _not_batch(op, axes, "reduce")
    shape = _main_input(op).shape
    innermost = bool(shape) and any(axis % len(shape) == len(shape) - 1 for axis in axes)
    if op.name == "MEAN" and innermost and shape[-1] % 4:
        yield f"a mean over {shape[-1]} channels", "use a multiple of 4 channels"


def _pack(op: Op) -> Iterator[Rejection]:
    yield from _not_batch(op, [op.options.axis if op.options is not None else 0], "pack")


def _pad(op: Op) -> Iterator[Rejection]:
    if np.any(_constant(op, 1)[:1]):
        yield "it pads the batch dimension", "pad other dimensions than the first"


def _prelu(op: Op) -> Iterator[Rejection]:
    alpha = op.inputs[1]
    if alpha is not None and any(size > 1 for size in alpha.shape[:-1]):
        yield "one alpha per pixel", "share alpha between pixels: shared_axes=[1, 2] in Keras"


def _resize(op: Op) -> Iterator[Rejection]:
    if op.options is not None and op.options.halfPixelCenters:
        # Issues 187, 396 and 420, of compilers 14 and 15.
        yield (
            "operation version not supported: half-pixel centres",
            "resize without them",
        )


def _softmax(op: Op) -> Iterator[Rejection]:
    shape = _main_input(op).shape
    if sum(size > 1 for size in shape) > 1:
        yield (
            "its input has more than one dimension",
            "compute the softmax on the CPU, after the network",
        )
    elif max(shape, default=1) > SOFTMAX_ELEMENTS:
        yield f"more than {SOFTMAX_ELEMENTS:,} elements", "use fewer classes"


def _split(op: Op) -> Iterator[Rejection]:
    yield from _not_batch(op, [int(axis) for axis in np.ravel(_constant(op, 0))], "split")


def _strided_slice(op: Op) -> Iterator[Rejection]:
    if np.any(_constant(op, 3) != 1):
        yield "strides other than 1", "slice with strides of 1"
    if op.options is not None and (op.options.ellipsisMask or op.options.newAxisMask):
        yield "an ellipsis or a new axis", "name begin and end of each dimension"


def _main_input(op: Op) -> Tensor:
    """Return the op's main input."""
    number = {"TRANSPOSE_CONV": 2, "SPLIT": 1}.get(op.name, 0)
    tensor = op.inputs[number]
    if tensor is None:
        raise ValueError(f"{op.name} without its input")
    return tensor


def _constant(op: Op, number: int) -> np.ndarray:  # type: ignore[type-arg]
    """Return a constant input, empty if it is not constant: `_check_tensors` rejects that."""
    values = op.value(number)
    return np.zeros(0, np.int32) if values is None else values


RULES: dict[str, Rule] = {
    "AVERAGE_POOL_2D": _no_activation,
    "CONCATENATION": _concatenation,
    "CONV_2D": _equal_dilation,
    "DEPTHWISE_CONV_2D": _equal_dilation,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": _no_activation,
    "MEAN": _reduce,
    "PACK": _pack,
    "PAD": _pad,
    "PRELU": _prelu,
    "REDUCE_MAX": _reduce,
    "REDUCE_MIN": _reduce,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "STRIDED_SLICE": _strided_slice,
    "SUM": _reduce,
}
"""The limits that are documented for single ops."""


@dataclass(frozen=True)
class CompilerRow:
    """A row of the compiler's log: the number of ops of a kind, and where they run."""

    op: str
    count: int
    status: str


def check(content: bytes, name: str) -> TargetResult:
    """Return which ops of a file called `name` the Edge TPU rejects; `ok` if there is none.

    Without the compiler the result is not verified.

    Raises GliosliceError if the file is not a TFLite file.
    """
    ops = ops_of(read_model(content))
    rejections = {op.index: found for op in ops if (found := list(rejections_of(op)))}
    first = min(rejections, default=len(ops))
    rows = [("documented list", f"{len(ops) - len(rejections)} of {len(ops)} ops pass")]
    rejected = list(_rejected_rows(ops, rejections))
    rows += rejected
    if rejections:
        rows.append(("on the CPU", f"{len(ops) - first} ops: the first rejected and all after it"))
    uncertain = {op.name for op in ops if op.name in UNCERTAIN and op.index not in rejections}
    rows += [(f"uncertain: {kind}", UNCERTAIN[kind]) for kind in sorted(uncertain)]
    report: dict[str, Any] = {"ops": [_entry(op, rejections, first) for op in ops]}
    compiled, files = compile_with(COMPILER, content, name)
    rows.append((COMPILER, _describe_compilation(compiled)))
    report["compiler"] = compiled
    mapped = compiled is None or compiled["all_mapped"]
    problems = [f"{what}: {why}" for what, why in rejected]
    if not mapped:
        problems.append(f"{COMPILER}: {_describe_compilation(compiled)}")
    ok = not rejections and mapped
    verified = compiled is not None
    return TargetResult("coral", ok, tuple(rows), report, files, "; ".join(problems), verified)


def rejections_of(op: Op) -> Iterator[Rejection]:
    """Yield each reason why the Edge TPU would not run the op, and what to do about it."""
    if op.name not in NEWEST_VERSIONS:
        remedy = ALTERNATIVES.get(op.name, "build it of supported ops, or do it after the network")
        yield "not on the list of supported operations", remedy
        return
    if op.version > NEWEST_VERSIONS[op.name]:
        yield (
            f"version {op.version} of the op is newer than {NEWEST_VERSIONS[op.name]}, the newest "
            "that the compiler supports",
            "convert with an older TensorFlow",
        )
    yield from _check_tensors(op)
    if op.name in RULES:
        yield from RULES[op.name](op)


def _check_tensors(op: Op) -> Iterator[Rejection]:
    """Yield the general requirements that the op's tensors do not meet."""
    parameters = PARAMETERS.get(op.name, ())
    inputs = [tensor for tensor in op.inputs if tensor is not None]
    variable = [t for i, t in enumerate(op.inputs) if t and not t.constant and i not in parameters]
    variable += op.outputs
    wide = {"INT16"} if op.name.endswith("LSTM") else set()  # the cell state of a quantized LSTM
    for dtype in sorted({t.dtype for t in variable} - EIGHT_BITS - wide):
        yield f"a tensor of {dtype}", "quantize fully to 8 bits, inputs and outputs too"
    for dtype in sorted({t.dtype for t in inputs if t.constant} - EIGHT_BITS - {"INT32"} - wide):
        yield f"a constant of {dtype}", "quantize weights to 8 bits, biases to 32"
    if any(size < 1 for tensor in variable for size in tensor.shape):
        yield "a size that is not fixed", "convert with fixed sizes, a batch of 1 included"
    elif any(size > 1 for tensor in variable for size in tensor.shape[:-INNERMOST]):
        yield (
            f"more than the {INNERMOST} innermost dimensions are larger than 1",
            "use a batch of 1 and at most three dimensions",
        )
    for number in parameters:
        tensor = op.inputs[number] if number < len(op.inputs) else None
        if tensor is not None and not tensor.constant:
            yield f"input {number} is computed", "make it a constant of the file"


def compile_with(
    command: str, content: bytes, name: str
) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """Return the compiler's report and its files; the report is None if it is not on the PATH."""
    found = shutil.which(command)
    if found is None:
        return None, {}
    with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:
        source = Path(folder, f"{name}.tflite")
        source.write_bytes(content)
        try:
            finished = subprocess.run(
                [found, "--out_dir", folder, str(source)],
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
            output = finished.stdout + finished.stderr
        except subprocess.TimeoutExpired:
            output = f"did not finish within {TIMEOUT} s"
        paths = [Path(folder, f"{name}_edgetpu{suffix}") for suffix in (".log", ".tflite")]
        files = {path.name: path.read_bytes() for path in paths if path.is_file()}
    if len(files) != len(paths):
        last = " ".join(output.split())[-300:]
        return {"compiled": False, "output": last, "lines": [], "all_mapped": False}, {}
    log = files[f"{name}_edgetpu.log"].decode(errors="replace")
    rows = read_log(log)
    return {
        "compiled": True,
        "version": _version(log),
        "lines": [vars(row) for row in rows],
        "all_mapped": bool(rows) and all(row.status == MAPPED for row in rows),
    }, files


def read_log(log: str) -> tuple[CompilerRow, ...]:
    """Return the table in a compiler's log: operator, count and status, separated by spaces."""
    found = re.finditer(r"^([A-Z][A-Z0-9_]+)[ \t]+(\d+)[ \t]+(\S.*?)[ \t]*$", log, re.MULTILINE)
    return tuple(CompilerRow(match[1], int(match[2]), match[3]) for match in found)


def _version(log: str) -> str | None:
    found = re.search(r"Edge TPU Compiler version (\S+)", log)
    return None if found is None else found[1]


def _describe_compilation(compiled: dict[str, Any] | None) -> str:
    if compiled is None:
        return "not on the PATH: not compiled"
    if not compiled["compiled"]:
        return f"rejected the file: {compiled['output']}"
    rows = [CompilerRow(**row) for row in compiled["lines"]]
    left = [f"{row.count} {row.op}: {row.status}" for row in rows if row.status != MAPPED]
    mapped = sum(row.count for row in rows if row.status == MAPPED)
    return "; ".join([f"version {compiled['version']}, {mapped} ops mapped", *left])


def _rejected_rows(
    ops: Sequence[Op], rejections: dict[int, list[Rejection]]
) -> Iterator[tuple[str, str]]:
    """Yield a row for the ops of one kind that are rejected for the same reasons."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, found in rejections.items():
        reasons = "; ".join(f"{why} ({remedy})" for why, remedy in found)
        groups.setdefault((ops[index].name, reasons), []).append(index)
    for (kind, reasons), indices in groups.items():
        number = f"{len(indices)} x " if len(indices) > 1 else ""
        yield f"rejected: {number}{kind}, op {indices[0]}", reasons


def _entry(op: Op, rejections: dict[int, list[Rejection]], first: int) -> dict[str, Any]:
    """Return an op's entry in `report.json`; its keys and values are a format."""
    entry: dict[str, Any] = {"index": op.index, "op": op.name}
    if op.index in rejections:
        return entry | {
            "verdict": "refused",
            "refusals": [{"why": why, "mend": remedy} for why, remedy in rejections[op.index]],
        }
    if op.index > first:
        return entry | {"verdict": "on the CPU, behind a refused op"}
    return entry | {"verdict": "perhaps" if op.name in UNCERTAIN else "listed"}
