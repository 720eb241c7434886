"""What is printed and written of a conversion, and in which order, for made-up results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from convert import to_tflite
from convert.artifacts import ModelFile, choose_precisions
from convert.pipeline import Conversion, ConversionResult, Source
from convert.quantization import Attempt, Int8Candidate
from convert.targets import TargetResult
from convert.to_tflite import convert_and_write
from convert.verify.acceptance import STANDARD, Evaluation, GateResult
from convert.verify.layer_errors import Layer
from glioslice.errors import GliosliceError
from tests.convert.commands import expect_error
from tests.convert.hard_networks import plain

INT8 = ModelFile("net-int8.tflite", "int8", True, b"int8")
FP32 = ModelFile("net-fp32.tflite", "fp32", False, plain())
LAYER = Layer(0, "CONV_2D", "encoder.0", (1,), 0.0, 1.0, 0.0, 20.0, 20.0, 1.0, 1, 1)
DICE = {"WT": 0.9, "TC": 0.8, "ET": 0.7, "mean": 0.8}
RESULT = ConversionResult(
    files=(INT8, FP32),
    evaluations={INT8.name: Evaluation(DICE, 0.99), FP32.name: Evaluation(DICE, 1.0)},
    attempts=(
        Attempt(
            Int8Candidate("usual calibration", b"", b""), (), {}, GateResult("drop", 0.0, 0.005)
        ),
    ),
    float_gates={},
    layers=(LAYER,),
)


class Stub:
    """A source with a name and a description only."""

    name = "net"

    def describe(self) -> dict[str, Any]:
        return {"judged_on": {"what": "nothing"}}


ConvertAndWrite = Callable[..., dict[str, Any]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> ConvertAndWrite:
    """Convert to a given result, compatible with targets or not; return what would be written."""

    def run(result: ConversionResult, **targets: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def write(
            files: Sequence[ModelFile], report: dict[str, Any], extras: Mapping[str, bytes]
        ) -> None:
            found.update(files=files, report=report, extras=extras)

        def check(target: str, ok: bool) -> Callable[[bytes, str], TargetResult]:
            def checked(content: bytes, name: str) -> TargetResult:
                assert (content, name) == (b"int8", "net-int8")
                problems = "" if ok else "2 HARD_SWISH (use RELU)"
                files = {f"{target}.h": b"a header"}
                return TargetResult(target, ok, (("ops", "3"),), {"ops": 3}, files, problems)

            return checked

        monkeypatch.setattr(to_tflite, "run_conversion", lambda _: result)
        monkeypatch.setattr(to_tflite, "TARGETS", {t: check(t, ok) for t, ok in targets.items()})
        conversion = Conversion(cast(Source, Stub()), ("int8",), STANDARD)
        convert_and_write(conversion, list(targets), write)
        return found

    return run


def test_results_and_files_of_targets_are_written(
    written: ConvertAndWrite, capsys: pytest.CaptureFixture[str]
) -> None:
    found = written(RESULT, pi=True, micro=True)
    assert set(found["extras"]) == {"pi.h", "micro.h", "report.svg"}
    assert found["report"]["targets"] == [
        {"target": "pi", "ok": True, "verified": True, "ops": 3},
        {"target": "micro", "ok": True, "verified": True, "ops": 3},
    ]  # fmt: skip
    assert "pi: compatible\n  ops  3" in capsys.readouterr().out
    assert "targets" not in written(RESULT)["report"]


def test_an_incompatible_file_is_no_product(
    written: ConvertAndWrite, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GliosliceError) as caught:
        written(RESULT, pi=True, coral=False)
    assert "coral: 2 HARD_SWISH (use RELU)" in str(caught.value)
    assert "coral: not compatible" in capsys.readouterr().out


def test_layers_and_files_are_printed_before_a_rejection(
    written: ConvertAndWrite, capsys: pytest.CaptureFixture[str]
) -> None:
    rejected = replace(RESULT, evaluations={}, attempts=(), rejected="net-int8.tflite is too large")
    with pytest.raises(GliosliceError, match="too large; nothing was written"):
        written(rejected, pi=True)
    output = capsys.readouterr().out
    assert "encoder.0  CONV_2D" in output
    assert "net-int8.tflite" in output
    assert "compatible" not in output


def test_layers_that_cannot_be_measured_are_reported(
    written: ConvertAndWrite, capsys: pytest.CaptureFixture[str]
) -> None:
    found = written(replace(RESULT, layers=(), layers_error="the files hold other ops"))
    assert "net: no table of layers: the files hold other ops" in capsys.readouterr().out
    assert found["report"]["layers_unmeasured"] == "the files hold other ops"
    assert found["extras"] == {}


def test_targets_need_the_int8_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert choose_precisions(None, "nano", ("pi",)) == ("int8", "fp16")
    with pytest.raises(GliosliceError, match="add int8 to --precision"):
        choose_precisions("fp16", "nano", ("pi", "coral"))
    expect_error(tmp_path, "--target", "pi,tpu")
    assert "a target is one of pi" in capsys.readouterr().err
