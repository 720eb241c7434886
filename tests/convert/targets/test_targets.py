import importlib
import json
from types import ModuleType

import pytest

from convert.targets import TARGETS, chosen_targets, ethos, micro
from convert.targets.result import Outcome
from glioslice.errors import GliosliceError
from tests.convert.targets.graphs import Graph, numbers


def relu() -> bytes:
    graph = Graph(1, 8, 8, 4)
    graph.op("RELU", [0], 1, 8, 8, 4)
    return graph.content


@pytest.mark.parametrize("target", TARGETS)
def test_each_outcome_is_whole(target: str) -> None:
    outcome = TARGETS[target](relu(), "small")
    assert isinstance(outcome, Outcome)
    assert outcome.target == target
    entry = json.loads(json.dumps(outcome.entry))
    assert (entry["target"], entry["ok"]) == (target, outcome.ok)
    assert outcome.table.splitlines()[0] in (f"{target}: suits", f"{target}: does not suit")
    assert len(outcome.table.splitlines()) == 1 + len(outcome.rows)
    assert outcome.ok == (not outcome.against)


@pytest.mark.parametrize(
    ("target", "op", "mend"),
    [
        ("coral", "refused: CUMSUM, op 0: not on the list", "build it of ops of the list"),
        ("ethos-u55-128", "1 CUMSUM left on the CPU", ""),
    ],
)
def test_what_stands_against_a_file_is_one_line(target: str, op: str, mend: str) -> None:
    graph = Graph(1, 8, 8, 4)
    graph.op("CUMSUM", [0, graph.constant(numbers(1))], 1, 8, 8, 4)
    outcome = TARGETS[target](graph.content, "small")
    assert not outcome.ok
    assert op in outcome.against
    assert mend in outcome.against
    assert "\n" not in outcome.against


@pytest.mark.parametrize("target", TARGETS)
def test_a_foreign_file_is_refused(target: str) -> None:
    with pytest.raises(GliosliceError, match="no TFLite file"):
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


def test_targets_are_chosen_by_one_or_several_options() -> None:
    assert chosen_targets([]) == ()
    assert chosen_targets(["pi,coral", "pi"]) == ("pi", "coral")
    assert chosen_targets(["ethos-u55-128"]) == ("ethos-u55-128",)
    with pytest.raises(GliosliceError, match="--target tpu: a target is one of pi, coral"):
        chosen_targets(["pi,tpu"])
