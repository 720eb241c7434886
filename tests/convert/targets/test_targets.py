import importlib
import json
from types import ModuleType

import pytest

from convert.targets import TargetResult, ethos, micro
from convert.to_tflite import TARGETS, choose_targets
from glioslice.errors import GliosliceError
from tests.convert.targets.graphs import GraphBuilder, numbers


def relu() -> bytes:
    graph = GraphBuilder(1, 8, 8, 4)
    graph.op("RELU", [0], 1, 8, 8, 4)
    return graph.content


@pytest.mark.parametrize("target", TARGETS)
def test_each_result_is_complete(target: str) -> None:
    result = TARGETS[target](relu(), "small")
    assert isinstance(result, TargetResult)
    assert result.target == target
    entry = json.loads(json.dumps(result.entry))
    assert (entry["target"], entry["ok"]) == (target, result.ok)
    assert result.table.splitlines()[0] in (
        f"{target}: compatible",
        f"{target}: not compatible",
        f"{target}: not verified",
    )
    assert len(result.table.splitlines()) == 1 + len(result.rows)
    assert result.ok == (not result.problems)


@pytest.mark.parametrize(
    ("target", "op", "remedy"),
    [
        ("coral", "rejected: CUMSUM, op 0: not on the list", "build it of supported ops"),
        ("ethos-u55-128", "1 CUMSUM left on the CPU", ""),
    ],
)
def test_problems_are_one_line(target: str, op: str, remedy: str) -> None:
    graph = GraphBuilder(1, 8, 8, 4)
    graph.op("CUMSUM", [0, graph.constant(numbers(1))], 1, 8, 8, 4)
    result = TARGETS[target](graph.content, "small")
    assert not result.ok
    assert op in result.problems
    assert remedy in result.problems
    assert "\n" not in result.problems


@pytest.mark.parametrize("target", TARGETS)
def test_a_foreign_file_is_rejected(target: str) -> None:
    with pytest.raises(GliosliceError, match="not a TFLite file"):
        TARGETS[target](b"PK\x03\x04 a zip file", "x")


@pytest.mark.parametrize(
    ("check", "package"), [(micro.check, "tflite-micro"), (ethos.check, "ethos-u-vela")]
)
def test_a_missing_tool_is_named(
    check: object, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(GliosliceError, match=f"needs {package}: pip install {package}"):
        check(relu(), "x")  # type: ignore[operator]


def test_targets_of_one_or_several_options() -> None:
    assert choose_targets([]) == ()
    assert choose_targets(["pi,coral", "pi"]) == ("pi", "coral")
    assert choose_targets(["ethos-u55-128"]) == ("ethos-u55-128",)
    with pytest.raises(GliosliceError, match="--target tpu: a target is one of pi, coral"):
        choose_targets(["pi,tpu"])
