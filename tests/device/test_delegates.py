"""Which ops a runtime would run itself, of made-up lists of nodes."""

from typing import Any

from device.delegates import ACCELERATED, COMPILED, placement_of


def node(name: str, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
    return {"op_name": name, "inputs": inputs, "outputs": outputs}


GRAPH = [
    node("CONV_2D", [0], [1]),
    node("RESIZE_NEAREST_NEIGHBOR", [1], [2]),
    node("CONV_2D", [2], [3]),
]


def test_ops_between_the_parts_are_left() -> None:
    placed = placement_of([*GRAPH, node("DELEGATE", [0], [1]), node("DELEGATE", [2], [3])], [3])
    assert (placed.left, placed.parts, placed.taken) == (("RESIZE_NEAREST_NEIGHBOR",), 2, 2)
    assert placed.arithmetic_left == ()
    assert str(placed) == "2 of 3 ops taken in 2 parts; left: 1 RESIZE_NEAREST_NEIGHBOR"


def test_arithmetic_left_is_named() -> None:
    placed = placement_of([*GRAPH, node("DELEGATE", [2], [3])], [3])
    assert placed.arithmetic_left == ("CONV_2D",)
    assert placement_of(GRAPH, [3]).arithmetic_left == ("CONV_2D", "CONV_2D")


def test_a_compiled_op_is_taken_or_left() -> None:
    compiled = [node(COMPILED, [0], [1]), node("CONV_2D", [1], [2])]
    placed = placement_of([*compiled, node(ACCELERATED, [0], [1])], [2])
    assert (placed.compiled, placed.left) == (1, ("CONV_2D",))
    assert placement_of(compiled, [2]).left == (COMPILED, "CONV_2D")
