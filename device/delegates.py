"""Who runs the network: XNNPACK, an accelerator, or the runtime's own kernels?

A runtime lists a graph's ops and behind them the parts that delegates took, not which of the ops
it will still run itself. That follows from where the outputs come from: walking back from them,
whatever a part gives comes from that part, and only what no part gives comes from an op.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ACCELERATED = "EdgeTpuDelegateForCustomOp"
"""The part that libedgetpu puts where a compiled file says `COMPILED`."""

COMPILED = "edgetpu-custom-op"
PARTS = ("DELEGATE", ACCELERATED)
MOVING = frozenset({"RESIZE_NEAREST_NEIGHBOR"})
"""Ops that only move values: XNNPACK has no nearest resize, and whoever runs it gives the same."""


@dataclass(frozen=True)
class Placement:
    """Of `ops` ops a runtime runs `left` itself, by name; delegates run the others in `parts`.

    `places` are the numbers of those left in the file. `compiled` ops are those that a compiler
    made for the Edge TPU.
    """

    ops: int
    left: tuple[str, ...]
    places: tuple[int, ...]
    parts: int
    compiled: int

    @property
    def arithmetic_left(self) -> tuple[str, ...]:
        """The ops left that compute: with XNNPACK at work there are none."""
        return tuple(name for name in self.left if name not in MOVING)

    @property
    def taken(self) -> int:
        """How many ops delegates run."""
        return self.ops - len(self.left)

    def __str__(self) -> str:
        """Say it on one line."""
        counted = ", ".join(f"{n} {name}" for name, n in Counter(self.left).items())
        left = f"; left: {counted}" if counted else ""
        return f"{self.taken} of {self.ops} ops taken in {self.parts} parts{left}"


def placement_of(nodes: Sequence[Mapping[str, Any]], outputs: Iterable[int]) -> Placement:
    """Return who runs what, of an interpreter's `_get_ops_details()` and its output tensors."""
    ops = [node for node in nodes if node["op_name"] not in PARTS]
    parts = [node for node in nodes if node["op_name"] in PARTS]
    needed, seen, run = set(outputs), set[int](), set[int]()
    while needed:
        tensor = needed.pop()
        seen.add(tensor)
        sources = [part for part in parts if tensor in part["outputs"]]
        if not sources:
            found = [i for i, op in enumerate(ops) if tensor in op["outputs"]]
            run.update(found)
            sources = [ops[i] for i in found]
        for source in sources:
            needed |= {int(i) for i in source["inputs"]} - seen
    return Placement(
        ops=len(ops),
        left=tuple(ops[i]["op_name"] for i in sorted(run)),
        places=tuple(sorted(run)),
        parts=len(parts),
        compiled=sum(op["op_name"] == COMPILED for op in ops),
    )
