"""Which parts of a network delegates run, and which the runtime runs on its own kernels.

A delegate is XNNPACK or an accelerator. A runtime lists a graph's ops, followed by the parts that
delegates took over, but not which ops it still runs itself. `inspect_delegates` walks back from the
outputs: a tensor that a delegated part produces comes from that part, any other from an op of the
runtime.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ACCELERATED = "EdgeTpuDelegateForCustomOp"
"""The part that libedgetpu inserts where a compiled file has `COMPILED`."""

COMPILED = "edgetpu-custom-op"
DELEGATE_PARTS = ("DELEGATE", ACCELERATED)
COPYING_OPS = frozenset({"RESIZE_NEAREST_NEIGHBOR"})
"""Ops that only copy values, alike in every kernel. XNNPACK has no nearest-neighbour resize."""


@dataclass(frozen=True)
class DelegateReport:
    """Who runs the `ops` ops of a network: delegates in `parts` parts, the runtime the `remaining`.

    `remaining` are names, `remaining_indices` their positions in the file. `compiled` counts the
    ops that the Edge TPU's compiler made.
    """

    ops: int
    remaining: tuple[str, ...]
    remaining_indices: tuple[int, ...]
    parts: int
    compiled: int

    @property
    def remaining_arithmetic(self) -> tuple[str, ...]:
        """The remaining ops that compute; there are none if XNNPACK works as it should."""
        return tuple(name for name in self.remaining if name not in COPYING_OPS)

    @property
    def taken(self) -> int:
        """The number of ops that delegates run."""
        return self.ops - len(self.remaining)

    def __str__(self) -> str:
        """Return the report on one line."""
        counted = ", ".join(f"{n} {name}" for name, n in Counter(self.remaining).items())
        remaining = f"; remaining: {counted}" if counted else ""
        return f"{self.taken} of {self.ops} ops delegated in {self.parts} parts{remaining}"


def inspect_delegates(nodes: Sequence[Mapping[str, Any]], outputs: Iterable[int]) -> DelegateReport:
    """Return who runs what, from an interpreter's `_get_ops_details()` and its output tensors."""
    ops = [node for node in nodes if node["op_name"] not in DELEGATE_PARTS]
    parts = [node for node in nodes if node["op_name"] in DELEGATE_PARTS]
    needed, seen, remaining = set(outputs), set[int](), set[int]()
    while needed:
        tensor = needed.pop()
        seen.add(tensor)
        sources = [part for part in parts if tensor in part["outputs"]]
        if not sources:
            producers = [i for i, op in enumerate(ops) if tensor in op["outputs"]]
            remaining.update(producers)
            sources = [ops[i] for i in producers]
        for source in sources:
            needed |= {int(i) for i in source["inputs"]} - seen
    return DelegateReport(
        ops=len(ops),
        remaining=tuple(ops[i]["op_name"] for i in sorted(remaining)),
        remaining_indices=tuple(sorted(remaining)),
        parts=len(parts),
        compiled=sum(op["op_name"] == COMPILED for op in ops),
    )
