"""Google Coral: would the Edge TPU take every op of an int8 file?

A static check against the documentation (`convert.targets.coral_rules`), op by op. Where
`edgetpu_compiler` is on the PATH, it compiles the file too, and its log says what it made of it.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.ops import Op, ops_of
from convert.reading import read_model
from convert.targets.coral_list import INSTEAD, NEWEST, PARAMETERS, PERHAPS
from convert.targets.coral_rules import RULES, Refusal
from convert.targets.outcome import Outcome

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
