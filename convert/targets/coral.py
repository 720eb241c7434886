"""The Edge TPU's list of supported operations.

Source: "TensorFlow models on the Edge TPU" (coral.ai/docs/edgetpu/models-intro), model requirements
and the table of supported operations for runtime 14, which compiler 16 builds for. Numbers behind
"issue" are those of github.com/google-coral/edgetpu, where the compiler's own words are reported.
Nobody but the compiler decides: a file that passes here may still be left on the CPU in part.

The limits that the Edge TPU's documentation sets to single ops: see `coral_list`.

Google Coral: would the Edge TPU take every op of an int8 file?

A static check against the documentation (`convert.targets.coral`), op by op. Where
`edgetpu_compiler` is on the PATH, it compiles the file too, and its log says what it made of it.
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

from convert.targets.result import Outcome
from convert.tflite.ops import Op, Tensor, ops_of
from convert.tflite.reader import read_model

NEWEST = {
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
"""The supported ops, each with its newest version in TensorFlow 2.5, of the compiler's year, as
TensorFlow's `lite/tools/versioning/runtime_version.cc` lists them. The compiler refuses a whole
file over a newer one: CONV_2D 6 (issue 631), TRANSPOSE_CONV 4 (845), QUANTIZE 3 (879)."""

PERHAPS = {
    "RESHAPE": "large tensors may be left on the CPU",
    "RESIZE_BILINEAR": "left on the CPU for some sizes",
    "RESIZE_NEAREST_NEIGHBOR": "left on the CPU for some sizes",
    "TRANSPOSE": "sometimes left on the CPU (issue 433)",
}
"""Ops of the list about which the compiler decides by size."""

INSTEAD = {
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
"""Inputs that must be known when the file is compiled."""

Refusal = tuple[str, str]
"""Why an op is refused, and how to mend it."""
Rule = Callable[[Op], Iterator[Refusal]]

SOFTMAX_ELEMENTS = 16_000
NO_ACTIVATION = schema.ActivationFunctionType.NONE


def _no_activation(op: Op) -> Iterator[Refusal]:
    if op.options is not None and op.options.fusedActivationFunction != NO_ACTIVATION:
        yield "it has a fused activation", "move the activation into an op of its own, before it"


def _concatenation(op: Op) -> Iterator[Refusal]:
    yield from _no_activation(op)
    constants = [given for given in op.inputs if given is not None and given.constant]
    zeros = all(c.values is not None and bool(np.all(c.values == c.zero_point)) for c in constants)
    if constants and (len(op.inputs) != 2 or not zeros):
        yield "a constant among its inputs", "concatenate two inputs, the constant all zeros"


def _equal_dilation(op: Op) -> Iterator[Refusal]:
    if op.options is not None and op.options.dilationHFactor != op.options.dilationWFactor:
        yield "other dilation in y than in x", "dilate by the same factor both ways"


def _fully_connected(op: Op) -> Iterator[Refusal]:
    if op.options is not None and op.options.weightsFormat:
        yield "shuffled weights", "convert with weights in the default format"
    if sum(size > 1 for size in op.outputs[0].shape) > 1:
        yield "its output has more than one dimension", "use a 1 x 1 CONV_2D, or flatten before it"


def _not_batch(op: Op, axes: Iterable[int], verb: str) -> Iterator[Refusal]:
    rank = len(op.outputs[0].shape if op.name == "PACK" else _given(op).shape)
    if rank and any(axis % rank == 0 for axis in axes):
        yield f"it {verb}s the batch dimension", f"{verb} other dimensions than the first"


def _reduce(op: Op) -> Iterator[Refusal]:
    axes = [int(axis) for axis in np.ravel(_constant(op, 1))]
    yield from _not_batch(op, axes, "reduce")
    shape = _given(op).shape
    innermost = bool(shape) and any(axis % len(shape) == len(shape) - 1 for axis in axes)
    if op.name == "MEAN" and innermost and shape[-1] % 4:
        yield f"a mean over {shape[-1]} channels", "use a multiple of 4 channels"


def _pack(op: Op) -> Iterator[Refusal]:
    yield from _not_batch(op, [op.options.axis if op.options is not None else 0], "pack")


def _pad(op: Op) -> Iterator[Refusal]:
    if np.any(_constant(op, 1)[:1]):
        yield "it pads the batch dimension", "pad other dimensions than the first"


def _prelu(op: Op) -> Iterator[Refusal]:
    alpha = op.inputs[1]
    if alpha is not None and any(size > 1 for size in alpha.shape[:-1]):
        yield "one alpha for each place", "share alpha between places: shared_axes=[1, 2] in Keras"


def _resize(op: Op) -> Iterator[Refusal]:
    if op.options is not None and op.options.halfPixelCenters:
        # Issues 187, 396 and 420, of compilers 14 and 15.
        yield "operation version not supported: half-pixel centres", "resize in the plain form"


def _softmax(op: Op) -> Iterator[Refusal]:
    shape = _given(op).shape
    if sum(size > 1 for size in shape) > 1:
        yield "its input has more than one dimension", "take the softmax on the CPU, behind all"
    elif max(shape, default=1) > SOFTMAX_ELEMENTS:
        yield f"more than {SOFTMAX_ELEMENTS:,} elements", "use fewer classes"


def _split(op: Op) -> Iterator[Refusal]:
    yield from _not_batch(op, [int(axis) for axis in np.ravel(_constant(op, 0))], "split")


def _strided_slice(op: Op) -> Iterator[Refusal]:
    if np.any(_constant(op, 3) != 1):
        yield "strides other than 1", "slice with strides of 1"
    if op.options is not None and (op.options.ellipsisMask or op.options.newAxisMask):
        yield "an ellipsis or a new axis", "name begin and end of each dimension"


def _given(op: Op) -> Tensor:
    """Return the op's main input."""
    number = {"TRANSPOSE_CONV": 2, "SPLIT": 1}.get(op.name, 0)
    given = op.inputs[number]
    if given is None:
        raise ValueError(f"{op.name} without its input")
    return given


def _constant(op: Op, number: int) -> np.ndarray:  # type: ignore[type-arg]
    """Return a constant, empty where there is none: that is refused elsewhere."""
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

COMPILER = "edgetpu_compiler"
SECONDS = 600
INNERMOST = 3
"""Dimensions that may be larger than 1, from the last."""

EIGHT_BITS = frozenset({"INT8", "UINT8"})
MAPPED = "Mapped to Edge TPU"


@dataclass(frozen=True)
class Line:
    """A line of the compiler's log: so many ops of a kind, and what became of them."""

    op: str
    count: int
    status: str


def check(content: bytes, name: str) -> Outcome:
    """Return what the Edge TPU refuses of a file called `name`; `ok` if that is nothing.

    Raises GliosliceError if the file is no TFLite file.
    """
    ops = ops_of(read_model(content))
    refusals = {op.index: found for op in ops if (found := list(refusals_of(op)))}
    first = min(refusals, default=len(ops))
    rows = [("documented list", f"{len(ops) - len(refusals)} of {len(ops)} ops pass")]
    refused = list(_refused_rows(ops, refusals))
    rows += refused
    if refusals:
        rows.append(("on the CPU", f"{len(ops) - first} ops: the first refused one and all behind"))
    perhaps = sorted({op.name for op in ops if op.name in PERHAPS and op.index not in refusals})
    rows += [(f"perhaps: {kind}", PERHAPS[kind]) for kind in perhaps]
    report: dict[str, Any] = {"ops": [_entry(op, refusals, first) for op in ops]}
    compiled, files = compile_with(COMPILER, content, name)
    rows.append((COMPILER, _of_compiler(compiled)))
    report["compiler"] = compiled
    mapped = compiled is None or compiled["all_mapped"]
    against = [f"{what}: {why}" for what, why in refused]
    if not mapped:
        against.append(f"{COMPILER}: {_of_compiler(compiled)}")
    ok = not refusals and mapped
    return Outcome("coral", ok, tuple(rows), report, files, "; ".join(against))


def refusals_of(op: Op) -> Iterator[Refusal]:
    """Yield each reason why the Edge TPU would not run the op, and how to mend it."""
    if op.name not in NEWEST:
        mend = INSTEAD.get(op.name, "build it of ops of the list, or do it behind the network")
        yield "not on the list of supported operations", mend
        return
    if op.version > NEWEST[op.name]:
        yield (
            f"version {op.version} of the op is newer than {NEWEST[op.name]}, which the compiler "
            "knows",
            "convert with an older TensorFlow",
        )
    yield from _of_tensors(op)
    if op.name in RULES:
        yield from RULES[op.name](op)


def _of_tensors(op: Op) -> Iterator[Refusal]:
    """Yield what the requirements for all models have against the op's tensors."""
    parameters = PARAMETERS.get(op.name, ())
    given = [tensor for tensor in op.inputs if tensor is not None]
    moving = [t for i, t in enumerate(op.inputs) if t and not t.constant and i not in parameters]
    moving += op.outputs
    wide = {"INT16"} if op.name.endswith("LSTM") else set()  # the state of a quantised LSTM's cells
    for dtype in sorted({t.dtype for t in moving} - EIGHT_BITS - wide):
        yield f"a tensor of {dtype}", "quantise fully to 8 bits, inputs and outputs too"
    for dtype in sorted({t.dtype for t in given if t.constant} - EIGHT_BITS - {"INT32"} - wide):
        yield f"a constant of {dtype}", "quantise weights to 8 bits, biases to 32"
    if any(size < 1 for tensor in moving for size in tensor.shape):
        yield "a size that is not fixed", "convert with fixed sizes, a batch of 1 included"
    elif any(size > 1 for tensor in moving for size in tensor.shape[:-INNERMOST]):
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
    """Return what the compiler says of a file, and its files; None where it is not on the PATH."""
    found = shutil.which(command)
    if found is None:
        return None, {}
    with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:
        source = Path(folder, f"{name}.tflite")
        source.write_bytes(content)
        try:
            done = subprocess.run(
                [found, "--out_dir", folder, str(source)],
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            said = done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            said = f"not done after {SECONDS} s"
        paths = [Path(folder, f"{name}_edgetpu{suffix}") for suffix in (".log", ".tflite")]
        files = {path.name: path.read_bytes() for path in paths if path.is_file()}
    if len(files) != len(paths):
        last = " ".join(said.split())[-300:]
        return {"compiled": False, "said": last, "lines": [], "all_mapped": False}, {}
    log = files[f"{name}_edgetpu.log"].decode(errors="replace")
    lines = read_log(log)
    return {
        "compiled": True,
        "version": _version(log),
        "lines": [vars(line) for line in lines],
        "all_mapped": bool(lines) and all(line.status == MAPPED for line in lines),
    }, files


def read_log(log: str) -> tuple[Line, ...]:
    """Return the table of a compiler's log: operator, count and status, in columns of blanks."""
    found = re.finditer(r"^([A-Z][A-Z0-9_]+)[ \t]+(\d+)[ \t]+(\S.*?)[ \t]*$", log, re.MULTILINE)
    return tuple(Line(match[1], int(match[2]), match[3]) for match in found)


def _version(log: str) -> str | None:
    found = re.search(r"Edge TPU Compiler version (\S+)", log)
    return None if found is None else found[1]


def _of_compiler(compiled: dict[str, Any] | None) -> str:
    if compiled is None:
        return "not on the PATH: no compiler looked at this file"
    if not compiled["compiled"]:
        return f"refused the file: {compiled['said']}"
    lines = [Line(**line) for line in compiled["lines"]]
    left = [f"{line.count} {line.op}: {line.status}" for line in lines if line.status != MAPPED]
    mapped = sum(line.count for line in lines if line.status == MAPPED)
    return "; ".join([f"version {compiled['version']}, {mapped} ops mapped", *left])


def _refused_rows(
    ops: Sequence[Op], refusals: dict[int, list[Refusal]]
) -> Iterator[tuple[str, str]]:
    """Yield a row for the ops of one kind that are refused for the same reasons."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, found in refusals.items():
        told = "; ".join(f"{why} ({mend})" for why, mend in found)
        groups.setdefault((ops[index].name, told), []).append(index)
    for (kind, told), indices in groups.items():
        number = f"{len(indices)} x " if len(indices) > 1 else ""
        yield f"refused: {number}{kind}, op {indices[0]}", told


def _entry(op: Op, refusals: dict[int, list[Refusal]], first: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"index": op.index, "op": op.name}
    if op.index in refusals:
        return entry | {
            "verdict": "refused",
            "refusals": [{"why": why, "mend": mend} for why, mend in refusals[op.index]],
        }
    if op.index > first:
        return entry | {"verdict": "on the CPU, behind a refused op"}
    return entry | {"verdict": "perhaps" if op.name in PERHAPS else "listed"}
