"""What is printed and written of a conversion, and in which order, over outcomes made by hand."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from convert import to_tflite
from convert.artifacts import File, chosen_precisions
from convert.pipeline import Conversion, Outcome, Source
from convert.quantize.strategies import Attempt, Rung
from convert.targets.result import Outcome as Suited
from convert.to_tflite import deliver
from convert.verify.acceptance import STANDARD, Measure, Verdict
from convert.verify.layer_errors import Layer
from glioslice.errors import GliosliceError
from tests.convert.breaks import plain

INT8 = File("net-int8.tflite", "int8", True, b"int8")
FP32 = File("net-fp32.tflite", "fp32", False, plain())
LAYER = Layer(0, "CONV_2D", "encoder.0", (1,), 0.0, 1.0, 0.0, 20.0, 20.0, 1.0, 1, 1)
DICE = {"WT": 0.9, "TC": 0.8, "ET": 0.7, "mean": 0.8}
MADE = Outcome(
    files=(INT8, FP32),
    verdicts={INT8.name: Verdict(DICE, 0.99), FP32.name: Verdict(DICE, 1.0)},
    tried=(Attempt(Rung("usual calibration", b"", b""), (), {}, Measure("drop", 0.0, 0.005)),),
    others={},
    layers=(LAYER,),
)


class Stub:
    """A source of which nothing but its name and its account is asked."""

    name = "net"

    def account(self) -> dict[str, Any]:
        return {"judged_on": {"what": "nobody"}}


Deliver = Callable[..., dict[str, Any]]


@pytest.fixture
def delivered(monkeypatch: pytest.MonkeyPatch) -> Deliver:
    """Deliver an outcome for targets that suit or do not; return what was handed to be written."""

    def run(outcome: Outcome, **suits: bool) -> dict[str, Any]:
        handed: dict[str, Any] = {}

        def write(
            files: Sequence[File], report: dict[str, Any], beside: Mapping[str, bytes]
        ) -> None:
            handed.update(files=files, report=report, beside=beside)

        def check(target: str, ok: bool) -> Callable[[bytes, str], Suited]:
            def checked(content: bytes, name: str) -> Suited:
                assert (content, name) == (b"int8", "net-int8")
                against = "" if ok else "2 HARD_SWISH (use RELU)"
                files = {f"{target}.h": b"a header"}
                return Suited(target, ok, (("ops", "3"),), {"ops": 3}, files, against)

            return checked

        monkeypatch.setattr(to_tflite, "carry_out", lambda _: outcome)
        monkeypatch.setattr(to_tflite, "TARGETS", {t: check(t, ok) for t, ok in suits.items()})
        conversion = Conversion(cast(Source, Stub()), ("int8",), STANDARD)
        deliver(conversion, list(suits), write)
        return handed

    return run


def test_what_a_target_says_and_makes_is_written(
    delivered: Deliver, capsys: pytest.CaptureFixture[str]
) -> None:
    handed = delivered(MADE, pi=True, micro=True)
    assert set(handed["beside"]) == {"pi.h", "micro.h", "report.svg"}
    assert handed["report"]["targets"] == [
        {"target": "pi", "ok": True, "ops": 3}, {"target": "micro", "ok": True, "ops": 3}
    ]  # fmt: skip
    assert "pi: suits\n  ops  3" in capsys.readouterr().out
    assert "targets" not in delivered(MADE)["report"]


def test_a_file_that_does_not_suit_is_no_product(
    delivered: Deliver, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GliosliceError) as caught:
        delivered(MADE, pi=True, coral=False)
    said = "net-int8.tflite does not suit coral: 2 HARD_SWISH (use RELU); nothing was written"
    assert str(caught.value) == said
    assert "coral: does not suit" in capsys.readouterr().out


def test_layers_and_files_are_shown_before_a_refusal(
    delivered: Deliver, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = replace(MADE, verdicts={}, tried=(), refused="net-int8.tflite is too large")
    with pytest.raises(GliosliceError, match="too large; nothing was written"):
        delivered(refused, pi=True)
    said = capsys.readouterr().out
    assert "encoder.0  CONV_2D" in said
    assert "net-int8.tflite" in said
    assert "suits" not in said


def test_layers_that_cannot_be_measured_are_a_line(
    delivered: Deliver, capsys: pytest.CaptureFixture[str]
) -> None:
    handed = delivered(replace(MADE, layers=(), unmeasured="the files hold other ops"))
    assert "net: no table of layers: the files hold other ops" in capsys.readouterr().out
    assert handed["report"]["layers_unmeasured"] == "the files hold other ops"
    assert handed["beside"] == {}


def test_targets_are_of_the_int8_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert chosen_precisions(None, "nano", ("pi",)) == ("int8", "fp16")
    with pytest.raises(GliosliceError, match="--target pi,coral: targets are those of the int8"):
        chosen_precisions("fp16", "nano", ("pi", "coral"))
    monkeypatch.setattr(sys, "argv", ["to_tflite.py", str(tmp_path), "--target", "pi,tpu"])
    with pytest.raises(SystemExit) as ended:
        to_tflite.main()
    assert ended.value.code == 2
    assert "a target is one of pi" in capsys.readouterr().err
