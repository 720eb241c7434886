"""Microcontrollers: TFLite Micro runs the file bit for bit as the reference kernels do.

The check makes `model.h` and `model.c`: the file as an aligned array for C11 and C++11, the ops to
register and the size of the arena that the network needs.

TFLite Micro reports the arena that it used on standard error only. While it prepares an op it may
need a little more for a moment, and where that is missing some ops crash the process. So each arena
size is tried in a process of its own.
"""

import hashlib
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from convert.targets import TargetResult, require_tool
from convert.tflite.reader import ops_of, read_model
from glioslice.errors import GliosliceError

BYTES_PER_LINE = 16

METHODS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "LSTM": "LSTM",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
"""Names in `tflite::MicroMutableOpResolver` that cannot be derived from the schema's."""

FIRST_ARENA = 1 << 28
"""Bytes of the arena in which the needed size is measured."""

ALIGNMENT = 16
"""Bytes; an arena must lie at a multiple of this."""

MAX_EXTRA = 1 << 14
"""Bytes beyond the reported use that are tried before the file is rejected."""

TRIAL = """
import sys
import numpy
from tflite_micro.python.tflite_micro import runtime
file, values, arena = sys.argv[1:]
interpreter = runtime.Interpreter.from_file(file, arena_size=int(arena))
interpreter.set_input(numpy.load(values), 0)
interpreter.invoke()
"""

INPUTS = 4
"""Random inputs that both runtimes compute."""


def array_header(
    name: str,
    content: bytes,
    ops: Sequence[str],
    arena: int,
    input_details: dict[str, Any],
    output_details: dict[str, Any],
) -> str:
    """Return `model.h`; the details of the input and output tensors are LiteRT's."""
    lines = [
        f"/* {name}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}.",
        " * Research software, not a medical device: not for diagnosis or treatment.",
        " *",
        " * The ops to register, with TFLite Micro:",
        " *   tflite::MicroMutableOpResolver<GLIOSLICE_OPS> resolver;",
        " *   #define REGISTER(op) resolver.Add##op();",
        " *   GLIOSLICE_EACH_OP(REGISTER)",
        " */",
        "#ifndef GLIOSLICE_MODEL_H",
        "#define GLIOSLICE_MODEL_H",
        "",
        f"#define GLIOSLICE_MODEL_BYTES {len(content)}",
        "/* Align to 16 bytes. Measured with 8-byte pointers; 4-byte ones need a little less. */",
        f"#define GLIOSLICE_ARENA_BYTES {arena}",
        f"#define GLIOSLICE_OPS {len(ops)}",
        f"#define GLIOSLICE_EACH_OP(X) {' '.join(f'X({resolver_method(op)})' for op in ops)}",
        "",
        "/* real value = scale * (value - zero point); shapes are row by row, channels last */",
        *_tensor_macros("INPUT", input_details),
        *_tensor_macros("OUTPUT", output_details),
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "extern const unsigned char glioslice_model[GLIOSLICE_MODEL_BYTES];",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def array_source(content: bytes) -> str:
    """Return `model.c`; the array is aligned, since constants are read in place."""
    rows = [
        "  " + "".join(f"{byte}," for byte in content[start : start + BYTES_PER_LINE])
        for start in range(0, len(content), BYTES_PER_LINE)
    ]
    head = ["#include <stdalign.h>", '#include "model.h"', ""]
    head += ["alignas(16) const unsigned char glioslice_model[GLIOSLICE_MODEL_BYTES] = {"]
    return "\n".join([*head, *rows, "};"]) + "\n"


def resolver_method(op: str) -> str:
    """Return the op's method of `tflite::MicroMutableOpResolver`, without its "Add"."""
    words = op.split("_")
    return METHODS.get(op) or "".join(w if w == "2D" else w.capitalize() for w in words)


def _tensor_macros(prefix: str, details: dict[str, Any]) -> list[str]:
    scale, zero_point = details["quantization"]
    shape = ", ".join(str(int(size)) for size in details["shape"])
    lines = [f"#define GLIOSLICE_{prefix}_SHAPE {{{shape}}}"]
    if scale:
        lines.append(f"#define GLIOSLICE_{prefix}_SCALE {float(scale)!r}f")
        lines.append(f"#define GLIOSLICE_{prefix}_ZERO_POINT ({int(zero_point)})")
    return lines


def run_micro(interpreter: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Return the output of a TFLite Micro interpreter for its one input."""
    interpreter.set_input(values, 0)
    interpreter.invoke()
    return np.array(interpreter.get_output(0))


def find_arena(content: bytes, runtime: Any, values: NDArray[Any]) -> int:
    """Return the smallest arena, in steps of ALIGNMENT, in which TFLite Micro computes `values`.

    `runtime` is the module with TFLite Micro's `Interpreter`. Raises RuntimeError if it runs the
    file in no arena.
    """
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=FIRST_ARENA)
    run_micro(interpreter, values)
    with _capture_stderr() as captured:
        interpreter.print_allocations()  # `captured` is filled when the block ends
    found = re.search(r"Arena allocation total (\d+) bytes", "".join(captured))
    if found is None:
        raise RuntimeError(f"it did not report the size of its arena: {''.join(captured)[:200]}")
    used = int(found[1])
    with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:
        file, array = Path(folder, "model.tflite"), Path(folder, "values.npy")
        file.write_bytes(content)
        np.save(array, values)

        def runs(arena: int) -> bool:
            command = [sys.executable, "-c", TRIAL, str(file), str(array), str(arena)]
            return subprocess.run(command, capture_output=True).returncode == 0

        return _smallest(runs, used)


def _smallest(runs: Callable[[int], bool], used: int) -> int:
    """Return the first of `used`, `used` + ALIGNMENT, ... that runs."""
    if runs(used):
        return used
    too_few, enough = used, used + MAX_EXTRA
    if not runs(enough):
        raise RuntimeError(f"it reports {used:,} bytes of arena, but needs far more")
    while enough - too_few > ALIGNMENT:
        middle = too_few + (enough - too_few) // (2 * ALIGNMENT) * ALIGNMENT
        too_few, enough = (too_few, middle) if runs(middle) else (middle, enough)
    return enough


@contextmanager
def _capture_stderr() -> Iterator[list[str]]:
    """Yield a list that, after the block, holds what C code wrote to standard error."""
    captured: list[str] = []
    original = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield captured
        finally:
            os.dup2(original, 2)
            os.close(original)
            file.seek(0)
            captured.append(file.read().decode(errors="replace"))


@dataclass(frozen=True)
class MicroComparison:
    """How many values differ from LiteRT's, and LiteRT's details of the two tensors."""

    arena: int
    values: int
    different: int
    input_details: dict[str, Any]
    output_details: dict[str, Any]


def check(content: bytes, name: str) -> TargetResult:
    """Return how TFLite Micro runs a file called `name`; `ok` if no bit of an output differs.

    Raises GliosliceError if the file is not a TFLite file or has several inputs or outputs, or
    tflite-micro is missing.
    """
    kinds = tuple(dict.fromkeys(op.name for op in ops_of(read_model(content))))
    runtime = require_tool("tflite_micro.python.tflite_micro.runtime", "micro", "tflite-micro")
    version = f"tflite-micro {metadata.version('tflite-micro')}"
    try:
        run = compare(content, runtime)
    except (RuntimeError, ValueError) as error:  # how both runtimes reject a file
        why = " ".join(str(error).split())
        rows = (("runtime", version), ("refused", why))
        problems = f"a runtime rejects it: {why}"
        return TargetResult(
            "micro", False, rows, {"runtime": version, "refused": why}, {}, problems
        )
    equal = f"{run.values - run.different:,} of {run.values:,} values of {INPUTS} inputs"
    report = {
        "runtime": version,
        "inputs": INPUTS,
        "values": run.values,
        "different": run.different,
        "arena_bytes": run.arena,
        "pointer_bytes": struct.calcsize("P"),
        "ops": list(kinds),
    }
    header = array_header(name, content, kinds, run.arena, run.input_details, run.output_details)
    return TargetResult(
        "micro",
        run.different == 0,
        (
            ("runtime", version),
            ("equal to the reference", equal),
            ("arena", f"{run.arena:,} bytes here; 4-byte pointers need a little less"),
            ("ops to register", ", ".join(kinds)),
        ),
        report,
        {"model.h": header.encode(), "model.c": array_source(content).encode()},
        _problems(run, kinds),
    )


def _problems(run: MicroComparison, kinds: Sequence[str]) -> str:
    if not run.different:
        return ""
    return (
        f"{run.different:,} of {run.values:,} values differ from the reference kernels: one of "
        f"{', '.join(kinds)} rounds differently there; use convolutions, ADD, pooling and resizing"
    )


def compare(content: bytes, runtime: Any) -> MicroComparison:
    """Compare TFLite Micro with LiteRT's reference kernels on the same random inputs.

    TFLite Micro gets no more arena than it needs. Raises RuntimeError or ValueError if one
    of the two rejects the file.
    """
    reference = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    reference.allocate_tensors()
    source = _single(reference.get_input_details())
    result = _single(reference.get_output_details())
    inputs = list(_random_inputs(source))
    arena = find_arena(content, runtime, inputs[0])
    micro = runtime.Interpreter.from_bytes(content, arena_size=arena)
    values = different = 0
    for array in inputs:
        reference.set_tensor(source["index"], array)
        reference.invoke()
        expected, found = reference.get_tensor(result["index"]), run_micro(micro, array)
        values += expected.size
        different += int(np.count_nonzero(expected != found))
    return MicroComparison(arena, values, different, source, result)


def _single(details: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(details) != 1:
        raise GliosliceError("the target micro supports one input and one output tensor")
    return details[0]


def _random_inputs(details: dict[str, Any]) -> Iterator[NDArray[Any]]:
    """Yield random values over the whole range of an integer type, or of a normal distribution."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(details["dtype"])
    for _ in range(INPUTS):
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            yield rng.integers(limits.min, limits.max, details["shape"], dtype, endpoint=True)
        else:
            yield rng.normal(0, 1, details["shape"]).astype(dtype)
