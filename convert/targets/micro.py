"""A microcontroller: TFLite Micro runs the file, bit for bit as the reference kernels do.

Made for it are `model.h` and `model.c`, the file as an aligned array that C and C++ may include,
with the ops to register and the arena that this network needs.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from convert.ops import ops_of
from convert.reading import read_model
from convert.targets.arena import arena_of, run_micro
from convert.targets.c_array import c_header, c_source
from convert.targets.outcome import Outcome, tool
from glioslice.errors import GliosliceError

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
