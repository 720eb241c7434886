"""A Raspberry Pi or any other board with LiteRT: is every op taken by XNNPACK?

What XNNPACK leaves runs in LiteRT's own kernels, one delegate part before it and one behind. Which
ops it takes is decided when the interpreter is made, from the file, so this machine can tell.
"""

import platform
from collections import Counter
from importlib import metadata

from ai_edge_litert.interpreter import Interpreter

from convert.targets.result import Outcome
from convert.tflite.ops import ops_of
from convert.tflite.reader import read_model
from device.delegates import Placement, placement_of
from glioslice.errors import GliosliceError

INSTEAD = "use another op"
MEND = {
    "RESIZE_NEAREST_NEIGHBOR": "RESIZE_BILINEAR or TRANSPOSE_CONV is taken",
    "CONV_2D": "are the scales of its bias in the file?",
    "DEPTHWISE_CONV_2D": "are the scales of its bias in the file?",
    "FULLY_CONNECTED": "are the scales of its bias in the file?",
}
"""What helps with ops that networks of this kind hold."""


def check(content: bytes, name: str) -> Outcome:
    """Return which ops of a file run outside XNNPACK; `ok` if there is none.

    Raises GliosliceError if the file is no TFLite file or LiteRT refuses it.
    """
    ops = ops_of(read_model(content))
    placement = placed(content)
    left = [ops[place] for place in placement.places]
    runtime = f"ai-edge-litert {metadata.version('ai-edge-litert')}"
    rows = [
        ("runtime", f"{runtime} with XNNPACK, on {platform.machine()}"),
        ("taken by XNNPACK", f"{placement.taken} of {len(ops)} ops in {placement.parts} parts"),
    ]
    rows += [(f"left: {op.index} {op.name}", MEND.get(op.name, INSTEAD)) for op in left]
    against = "; ".join(
        f"{count} {kind} left to slower kernels ({MEND.get(kind, INSTEAD)})"
        for kind, count in Counter(op.name for op in left).items()
    )
    report = {
        "runtime": runtime,
        "checked_on": platform.machine(),
        "ops": len(ops),
        "taken": placement.taken,
        "parts": placement.parts,
        "left": [{"index": op.index, "op": op.name, "mend": MEND.get(op.name)} for op in left],
    }
    return Outcome("pi", not left, tuple(rows), report, against=against)


def placed(content: bytes) -> Placement:
    """Return which ops LiteRT would run itself; raises GliosliceError if it refuses the file."""
    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise GliosliceError(f"LiteRT refuses the file: {error}") from None
    outputs = (int(output["index"]) for output in interpreter.get_output_details())
    return placement_of(interpreter._get_ops_details(), outputs)
