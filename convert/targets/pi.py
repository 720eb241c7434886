"""A Raspberry Pi or any other board with LiteRT: is every op taken by XNNPACK?

What XNNPACK leaves runs in LiteRT's own kernels, one delegate part before it and one behind. Which
ops it takes is decided from the file when the interpreter is made, so this machine can tell.
"""

import platform
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from convert.ops import Op, ops_of
from convert.reading import read_model
from convert.targets.outcome import Outcome
from glioslice.errors import GliosliceError

DELEGATE = "DELEGATE"
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
    left, parts = ops_left(content, ops)
    runtime = f"ai-edge-litert {metadata.version('ai-edge-litert')}"
    rows = [
        ("runtime", f"{runtime} with XNNPACK, on {platform.machine()}"),
        ("taken by XNNPACK", f"{len(ops) - len(left)} of {len(ops)} ops in {parts} parts"),
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
        "taken": len(ops) - len(left),
        "parts": parts,
        "left": [{"index": op.index, "op": op.name, "mend": MEND.get(op.name)} for op in left],
    }
    return Outcome("pi", not left, tuple(rows), report, against=against)


def ops_left(content: bytes, ops: Sequence[Op]) -> tuple[tuple[Op, ...], int]:
    """Return the ops that LiteRT would run itself, and the number of delegate parts.

    LiteRT lists a graph's ops and the delegate's parts, not which of them it will run. That
    follows from where the outputs come from: walking back from them, whatever a part gives comes
    from that part, and only what no part gives comes from an op. Raises GliosliceError if LiteRT
    refuses the file.
    """
    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise GliosliceError(f"LiteRT refuses the file: {error}") from None
    nodes = [
        (node["op_name"], {int(i) for i in node["inputs"]}, {int(i) for i in node["outputs"]})
        for node in interpreter._get_ops_details()
    ]
    parts = [node for node in nodes if node[0] == DELEGATE]
    needed = {int(output["index"]) for output in interpreter.get_output_details()}
    run: set[int] = set()
    seen: set[int] = set()
    while needed:
        tensor = needed.pop()
        seen.add(tensor)
        sources: list[Any] = [part for part in parts if tensor in part[2]]
        if not sources:
            found = [i for i, node in enumerate(nodes[: len(ops)]) if tensor in node[2]]
            run.update(found)
            sources = [nodes[i] for i in found]
        for _, inputs, _ in sources:
            needed |= inputs - seen
    return tuple(op for op in ops if op.index in run), len(parts)
