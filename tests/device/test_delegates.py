"""Which ops a runtime runs itself, for synthetic lists of nodes."""

from typing import Any

from device.engine import ACCELERATED, COMPILED, inspect_delegates


def node(name: str, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
    return {"op_name": name, "inputs": inputs, "outputs": outputs}


GRAPH = [
    node("CONV_2D", [0], [1]),
    node("RESIZE_NEAREST_NEIGHBOR", [1], [2]),
    node("CONV_2D", [2], [3]),
]


def test_ops_between_the_parts_remain() -> None:
    report = inspect_delegates(
        [*GRAPH, node("DELEGATE", [0], [1]), node("DELEGATE", [2], [3])], [3]
    )
    assert (report.remaining, report.parts, report.taken) == (("RESIZE_NEAREST_NEIGHBOR",), 2, 2)
    assert report.remaining_arithmetic == ()
    assert "2 of 3 ops" in str(report) and "1 RESIZE_NEAREST_NEIGHBOR" in str(report)


def test_remaining_arithmetic_is_named() -> None:
    report = inspect_delegates([*GRAPH, node("DELEGATE", [2], [3])], [3])
    assert report.remaining_arithmetic == ("CONV_2D",)
    assert inspect_delegates(GRAPH, [3]).remaining_arithmetic == ("CONV_2D", "CONV_2D")


def test_a_compiled_op_is_delegated_or_remains() -> None:
    compiled = [node(COMPILED, [0], [1]), node("CONV_2D", [1], [2])]
    report = inspect_delegates([*compiled, node(ACCELERATED, [0], [1])], [2])
    assert (report.compiled, report.remaining) == (1, ("CONV_2D",))
    assert inspect_delegates(compiled, [2]).remaining == (COMPILED, "CONV_2D")
