"""Raspberry Pi, or any other board with LiteRT: does XNNPACK run every op?

An op that XNNPACK does not take runs in LiteRT's own kernels and splits the delegate in two. Which
ops it takes is decided from the file when the interpreter is made, so any machine can check it.
"""

import os
import platform
from collections import Counter
from importlib import metadata
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from convert.log_capture import redirect_output
from convert.targets import TargetResult
from convert.tflite.reader import ops_of, read_model
from device.engine import DelegateReport, inspect_delegates
from glioslice.errors import GliosliceError

ALTERNATIVES = {
    "RESIZE_NEAREST_NEIGHBOR": "RESIZE_BILINEAR or TRANSPOSE_CONV is taken",
    "CONV_2D": "are the scales of its bias in the file?",
    "DEPTHWISE_CONV_2D": "are the scales of its bias in the file?",
    "FULLY_CONNECTED": "are the scales of its bias in the file?",
}
"""What to do about the ops that networks of this kind hold."""


def check(content: bytes, name: str) -> TargetResult:
    """Return which ops of a file run outside XNNPACK; `ok` if there is none.

    Raises GliosliceError if the file is not a TFLite file or LiteRT rejects it.
    """
    ops = ops_of(read_model(content))
    placement = delegate_ops(content)
    left = [ops[place] for place in placement.remaining_indices]
    runtime = f"ai-edge-litert {metadata.version('ai-edge-litert')}"
    rows = [
        ("runtime", f"{runtime} with XNNPACK, on {platform.machine()}"),
        ("taken by XNNPACK", f"{placement.taken} of {len(ops)} ops in {placement.parts} parts"),
    ]
    rows += [(f"left: {op.index} {op.name}", _remedy(op.name)) for op in left]
    problems = "; ".join(
        f"{count} {kind} left to slower kernels ({_remedy(kind)})"
        for kind, count in Counter(op.name for op in left).items()
    )
    report = {
        "runtime": runtime,
        "checked_on": platform.machine(),
        "ops": len(ops),
        "taken": placement.taken,
        "parts": placement.parts,
        "left": [
            {"index": op.index, "op": op.name, "mend": ALTERNATIVES.get(op.name)} for op in left
        ],
    }
    return TargetResult("pi", not left, tuple(rows), report, problems=problems)


def _remedy(op: str) -> str:
    return ALTERNATIVES.get(op, "use another op")


def delegate_ops(content: bytes) -> DelegateReport:
    """Return which ops LiteRT would run itself; raises GliosliceError if it rejects the file."""
    try:
        with redirect_output(Path(os.devnull)):  # LiteRT announces the delegate on stderr
            interpreter = Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise GliosliceError(f"LiteRT rejects the file: {error}") from None
    outputs = (int(output["index"]) for output in interpreter.get_output_details())
    return inspect_delegates(interpreter._get_ops_details(), outputs)
