"""A TFLite file as C: `model.h` and `model.c`, for C11 and for C++11.

How much memory TFLite Micro needs for a file.

It says how much it used, on standard error alone. While it prepares an op it may need a little
more for a moment, and where that is missing some ops crash the process: so an arena is tried in a
process of its own.

A microcontroller: TFLite Micro runs the file, bit for bit as the reference kernels do.

Made for it are `model.h` and `model.c`, the file as an aligned array that C and C++ may include,
with the ops to register and the arena that this network needs.
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

from convert.targets.result import Outcome, tool
from convert.tflite.ops import ops_of
from convert.tflite.reader import read_model
from glioslice.errors import GliosliceError

BYTES_A_LINE = 16

METHODS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "LSTM": "LSTM",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
"""Names in `tflite::MicroMutableOpResolver` that do not follow from the schema's."""


def c_header(
    name: str,
    content: bytes,
    ops: Sequence[str],
    arena: int,
    given: dict[str, Any],
    output: dict[str, Any],
) -> str:
    """Return `model.h`; `given` and `output` are details of tensors as LiteRT gives them."""
    lines = [
        f"/* {name}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}.",
        " * Research software, no medical device: not for diagnosis or treatment.",
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
        "/* To lie at a multiple of 16. Found with 8-byte pointers; with 4 a little less does. */",
        f"#define GLIOSLICE_ARENA_BYTES {arena}",
        f"#define GLIOSLICE_OPS {len(ops)}",
        f"#define GLIOSLICE_EACH_OP(X) {' '.join(f'X({method_of(op)})' for op in ops)}",
        "",
        "/* real value = scale * (value - zero point); shapes are row by row, channels last */",
        *_tensor("INPUT", given),
        *_tensor("OUTPUT", output),
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


def c_source(content: bytes) -> str:
    """Return `model.c`: constants are read as they lie in the array, so it is aligned."""
    rows = [
        "  " + "".join(f"{byte}," for byte in content[start : start + BYTES_A_LINE])
        for start in range(0, len(content), BYTES_A_LINE)
    ]
    head = ["#include <stdalign.h>", '#include "model.h"', ""]
    head += ["alignas(16) const unsigned char glioslice_model[GLIOSLICE_MODEL_BYTES] = {"]
    return "\n".join([*head, *rows, "};"]) + "\n"


def method_of(op: str) -> str:
    """Return how `tflite::MicroMutableOpResolver` calls an op, without its "Add"."""
    words = op.split("_")
    return METHODS.get(op) or "".join(w if w == "2D" else w.capitalize() for w in words)


def _tensor(prefix: str, details: dict[str, Any]) -> list[str]:
    scale, zero_point = details["quantization"]
    shape = ", ".join(str(int(size)) for size in details["shape"])
    lines = [f"#define GLIOSLICE_{prefix}_SHAPE {{{shape}}}"]
    if scale:
        lines.append(f"#define GLIOSLICE_{prefix}_SCALE {float(scale)!r}f")
        lines.append(f"#define GLIOSLICE_{prefix}_ZERO_POINT ({int(zero_point)})")
    return lines


ROOM = 1 << 28
"""Bytes of arena to run in before it is known how many are needed."""

ALIGNMENT = 16
"""Bytes; an arena must lie at a multiple of so many."""

MOMENTARY = 1 << 14
"""Bytes, beside those it used, that are tried before a file is given up."""

TRIAL = """
import sys
import numpy
from tflite_micro.python.tflite_micro import runtime
file, values, arena = sys.argv[1:]
interpreter = runtime.Interpreter.from_file(file, arena_size=int(arena))
interpreter.set_input(numpy.load(values), 0)
interpreter.invoke()
"""


def run_micro(interpreter: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Return the output of a TFLite Micro interpreter for its one input."""
    interpreter.set_input(values, 0)
    interpreter.invoke()
    return np.array(interpreter.get_output(0))


def arena_of(content: bytes, runtime: Any, values: NDArray[Any]) -> int:
    """Return the fewest bytes, in steps of ALIGNMENT, in which TFLite Micro computes `values`.

    `runtime` is the module that has TFLite Micro's `Interpreter`. Raises RuntimeError if it does
    not run the file in any arena.
    """
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=ROOM)
    run_micro(interpreter, values)
    with _standard_error() as said:
        interpreter.print_allocations()  # `said` is filled when the block ends
    found = re.search(r"Arena allocation total (\d+) bytes", "".join(said))
    if found is None:
        raise RuntimeError(f"it did not say how large its arena is: {''.join(said)[:200]}")
    used = int(found[1])
    with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:
        file, array = Path(folder, "model.tflite"), Path(folder, "values.npy")
        file.write_bytes(content)
        np.save(array, values)

        def runs(arena: int) -> bool:
            command = [sys.executable, "-c", TRIAL, str(file), str(array), str(arena)]
            return subprocess.run(command, capture_output=True).returncode == 0

        return _fewest(runs, used)


def _fewest(runs: Callable[[int], bool], used: int) -> int:
    """Return the first of `used`, `used` + ALIGNMENT, ... that runs."""
    if runs(used):
        return used
    too_few, enough = used, used + MOMENTARY
    if not runs(enough):
        raise RuntimeError(f"it says that it used {used:,} bytes of arena, but needs far more")
    while enough - too_few > ALIGNMENT:
        middle = too_few + (enough - too_few) // (2 * ALIGNMENT) * ALIGNMENT
        too_few, enough = (too_few, middle) if runs(middle) else (middle, enough)
    return enough


@contextmanager
def _standard_error() -> Iterator[list[str]]:
    """Yield a list that holds, after the block, what was written to the standard error of C."""
    said: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))


INPUTS = 4
"""Random inputs that both sides compute."""


@dataclass(frozen=True)
class Run:
    """How TFLite Micro fared; `given` and `output` are LiteRT's details of the two tensors."""

    arena: int
    values: int
    different: int
    given: dict[str, Any]
    output: dict[str, Any]


def check(content: bytes, name: str) -> Outcome:
    """Return how a file called `name` fares in TFLite Micro; `ok` if no bit of an output differs.

    Raises GliosliceError if the file is no TFLite file or takes and gives more than one tensor, or
    tflite-micro is missing.
    """
    kinds = tuple(dict.fromkeys(op.name for op in ops_of(read_model(content))))
    runtime = tool("tflite_micro.python.tflite_micro.runtime", "micro", "tflite-micro")
    version = f"tflite-micro {metadata.version('tflite-micro')}"
    try:
        run = compare(content, runtime)
    except (RuntimeError, ValueError) as error:  # so both runtimes say that they refuse a file
        why = " ".join(str(error).split())
        rows = (("runtime", version), ("refused", why))
        against = f"a runtime refuses it: {why}"
        return Outcome("micro", False, rows, {"runtime": version, "refused": why}, {}, against)
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
    header = c_header(name, content, kinds, run.arena, run.given, run.output)
    return Outcome(
        "micro",
        run.different == 0,
        (
            ("runtime", version),
            ("equal to the reference", equal),
            ("arena", f"{run.arena:,} bytes here; with pointers of 4 bytes a little less"),
            ("ops to register", ", ".join(kinds)),
        ),
        report,
        {"model.h": header.encode(), "model.c": c_source(content).encode()},
        _against(run, kinds),
    )


def _against(run: Run, kinds: Sequence[str]) -> str:
    if not run.different:
        return ""
    return (
        f"{run.different:,} of {run.values:,} values differ from the reference kernels: one of "
        f"{', '.join(kinds)} rounds otherwise there; use convolutions, ADD, pooling and resizing"
    )


def compare(content: bytes, runtime: Any) -> Run:
    """Return what TFLite Micro and LiteRT's reference kernels make of the same random inputs.

    TFLite Micro gets no more arena than it needs. Raises RuntimeError or ValueError if one
    of the two refuses the file.
    """
    reference = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    reference.allocate_tensors()
    given, output = _only(reference.get_input_details()), _only(reference.get_output_details())
    inputs = list(_inputs(given))
    arena = arena_of(content, runtime, inputs[0])
    micro = runtime.Interpreter.from_bytes(content, arena_size=arena)
    values = different = 0
    for array in inputs:
        reference.set_tensor(given["index"], array)
        reference.invoke()
        wanted, answer = reference.get_tensor(output["index"]), run_micro(micro, array)
        values += wanted.size
        different += int(np.count_nonzero(wanted != answer))
    return Run(arena, values, different, given, output)


def _only(details: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(details) != 1:
        raise GliosliceError("the target micro is made for one input and one output tensor")
    return details[0]


def _inputs(given: dict[str, Any]) -> Iterator[NDArray[Any]]:
    """Yield random values over the whole range of an integer type, or of a normal distribution."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(given["dtype"])
    for _ in range(INPUTS):
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            yield rng.integers(limits.min, limits.max, given["shape"], dtype, endpoint=True)
        else:
            yield rng.normal(0, 1, given["shape"]).astype(dtype)
