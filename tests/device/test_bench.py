"""The benchmark measures the server's own code and fails if it is too slow."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from device import bench
from device.bench import baseline_name, check_speed, read_ratios
from glioslice.errors import GliosliceError
from glioslice.model_card import shipped_folder
from tests.device.conftest import MODEL

NANO = str(shipped_folder("nano") / MODEL)


def run_bench(*options: object) -> int:
    try:
        bench.main(["--model", NANO, "--seconds", "0", *map(str, options)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_board_is_measured_and_gets_a_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--reference", NANO, "--boards", tmp_path, "--threads", "1,2")
    assert run_bench(*options, "--max-ms", "60000", "--json", tmp_path / "bench.json") == 0
    output = capsys.readouterr().out
    result = json.loads((tmp_path / "bench.json").read_text())
    assert result["memory_mb"] > 30 and result["cold_start_ms"] > 100
    for row, threads in zip(result["runs"], (1, 2), strict=True):
        assert (row["threads"], row["slices"]) == (threads, bench.SLICES_PER_TURN)
        assert list(row["ms"]) == ["decode", "invoke", "encode", "whole"]
        assert all(spread["p50"] > 0 for spread in row["ms"].values())
        assert row["ms"]["whole"]["worst"] > row["ms"]["invoke"]["p50"]
        assert row["slices_per_second"] > 0 and row["first_ms"] > 0 and row["ratio"] > 0
    assert "p99 of every run" in output
    [path] = tmp_path.glob("*.csv")
    assert path.name == baseline_name(result) and path.name.endswith(
        "-ai-edge-litert-nano-int8.csv"
    )
    assert path.name in output
    assert {str(row["threads"]) for row in result["runs"]} == {
        row["threads"] for row in csv.DictReader(path.open())
    }


def test_a_slow_run_fails_and_json_can_go_to_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_bench("--max-ms", "0.001", "--json", "-") == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["runs"][0]["reference_ms"] is None
    assert "FAILED: 1 threads" in output.err and "0.001" in output.err


def make_result(ratio: float | None, p99: float = 9.0) -> dict[str, Any]:
    spread = {"p50": 1.0, "p90": 2.0, "p99": p99, "worst": 10.0}
    row = {
        "threads": 1, "slices": 9, "ratio": ratio, "slices_per_second": 3.0, "first_ms": 1.0,
        "ms": {"whole": spread}, "reference_ms": spread, "temperature_c": None,
        "clock_mhz": {"first": 1500.0, "lowest": 600.0, "highest": 1800.0, "last": 600.0},
    }  # fmt: skip
    return {
        "board": "Raspberry Pi 5 Model B Rev 1.0", "runtime": "ai-edge-litert 2.3.0",
        "kernels": "XNNPACK", "model": "compact-int8", "sha256": "ab" * 32, "seconds": 60.0,
        "cold_start_ms": 900.0, "memory_mb": 81.0, "runs": [row],
    }  # fmt: skip


FILE = "raspberry-pi-5-model-b-ai-edge-litert-compact-int8.csv"


def test_only_a_slower_run_fails_and_the_baseline_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_speed(make_result(0.4), None, tmp_path)
    assert read_ratios(tmp_path / FILE) == {1: 0.4}
    assert check_speed(make_result(0.1), None, tmp_path)
    assert check_speed(make_result(0.45), None, tmp_path)
    assert not check_speed(make_result(0.6), None, tmp_path)
    failure = capsys.readouterr().out.splitlines()[-1]
    assert "FAILED" in failure and "0.600" in failure and "0.400" in failure
    assert read_ratios(tmp_path / FILE) == {1: 0.4}
    row = next(csv.DictReader((tmp_path / FILE).open()))
    assert (row["clock_mhz_lowest"], row["temperature_c_highest"]) == ("600.000", "")


def test_p99_is_the_limit_and_a_slow_run_writes_no_baseline(tmp_path: Path) -> None:
    assert check_speed(make_result(None, p99=100.0), 100.0, tmp_path)
    assert not check_speed(make_result(0.4, p99=100.1), 100.0, tmp_path)
    assert not (tmp_path / FILE).exists()


def test_a_number_of_threads_without_a_baseline_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_speed(make_result(0.4), None, tmp_path)
    other = make_result(9.0)
    other["runs"][0]["threads"] = 4
    assert check_speed(other, None, tmp_path)
    assert "no row for 4 threads" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["threads,ratio\n1,\n", "threads\n1\n", "\xff"])
def test_a_malformed_baseline(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))
    if text == "\xff":
        with pytest.raises(GliosliceError, match="malformed"):
            read_ratios(tmp_path / FILE)
        return
    with pytest.raises(GliosliceError, match="malformed"):
        check_speed(make_result(0.4), None, tmp_path)


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench("--threads", "1,x") == 2
    (tmp_path / "bad.tflite").write_bytes(b"no network")
    assert run_bench("--reference", tmp_path / "bad.tflite") == 2
    assert "bad.tflite: refused by ai-edge-litert" in capsys.readouterr().err
