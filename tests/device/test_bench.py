"""The latency test measures what the runner does, and fails on what is too slow."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from device import bench
from device.bench_baseline import judged, name_of, read_ratios
from glioslice.errors import GliosliceError
from glioslice.model_card import shipped
from tests.device.conftest import MODEL

NANO = str(shipped("nano") / MODEL)


def command(*words: object) -> int:
    try:
        bench.main(["--model", NANO, "--seconds", "0", *map(str, words)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_board_is_measured_and_held_against_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--reference", NANO, "--boards", tmp_path, "--threads", "1,2")
    assert command(*words, "--max-ms", "60000", "--json", tmp_path / "bench.json") == 0
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "bench.json").read_text())
    assert result["memory_mb"] > 30 and result["cold_start_ms"] > 100
    for row, threads in zip(result["runs"], (1, 2), strict=True):
        assert (row["threads"], row["slices"]) == (threads, bench.BLOCK)
        assert list(row["ms"]) == ["decode", "invoke", "encode", "whole"]
        for spread in row["ms"].values():
            assert 0 < spread["p50"] <= spread["p90"] <= spread["p99"] <= spread["worst"]
        assert row["ms"]["whole"]["worst"] > row["ms"]["invoke"]["p50"]
        assert row["slices_per_second"] > 0 and row["first_ms"] > 0 and row["ratio"] > 0
    assert "p99 of every run is at most 60000 ms" in said
    [path] = tmp_path.glob("*.csv")
    assert path.name == name_of(result) and path.name.endswith("-ai-edge-litert-nano-int8.csv")
    assert path.name in said
    assert {str(row["threads"]) for row in result["runs"]} == {
        row["threads"] for row in csv.DictReader(path.open())
    }


def test_too_slow_fails_and_json_may_be_the_whole_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("--max-ms", "0.001", "--json", "-") == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["runs"][0]["reference_ms"] is None
    assert "FAILED: 1 threads: p99 is" in said.err and "0.001 were allowed" in said.err
    assert "no --reference network: no ratio is told" in said.err


def made_up(ratio: float | None, p99: float = 9.0) -> dict[str, Any]:
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


def test_only_slower_fails_and_the_file_stays(tmp_path: Path) -> None:
    said: list[str] = []
    assert not judged(made_up(0.4), None, tmp_path, said.append)
    assert read_ratios(tmp_path / FILE) == {1: 0.4}
    assert not judged(made_up(0.1), None, tmp_path, said.append)
    assert not judged(made_up(0.45), None, tmp_path, said.append)
    assert judged(made_up(0.6), None, tmp_path, said.append)
    assert said[-1].startswith("FAILED: 1 threads: 0.600 of the reference network's time, 0.400")
    assert read_ratios(tmp_path / FILE) == {1: 0.4}
    row = next(csv.DictReader((tmp_path / FILE).open()))
    assert (row["clock_mhz_lowest"], row["temperature_c_highest"]) == ("600.000", "")


def test_p99_decides_and_a_slow_run_writes_no_file(tmp_path: Path) -> None:
    said: list[str] = []
    assert not judged(made_up(None, p99=100.0), 100.0, tmp_path, said.append)
    assert judged(made_up(0.4, p99=100.1), 100.0, tmp_path, said.append)
    assert not (tmp_path / FILE).exists()


def test_other_threads_than_the_files_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    judged(made_up(0.4), None, tmp_path, said.append)
    other = made_up(9.0)
    other["runs"][0]["threads"] = 4
    assert not judged(other, None, tmp_path, said.append)
    assert "knows nothing of 4 threads" in said[-1]


@pytest.mark.parametrize("text", ["threads,ratio\n1,\n", "threads\n1\n", "\xff"])
def test_a_malformed_file(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))
    if text == "\xff":
        with pytest.raises(GliosliceError, match="malformed"):
            read_ratios(tmp_path / FILE)
        return
    with pytest.raises(GliosliceError, match="malformed"):
        judged(made_up(0.4), None, tmp_path, print)


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--threads", "1,x") == 2
    (tmp_path / "bad.tflite").write_bytes(b"no network")
    assert command("--reference", tmp_path / "bad.tflite") == 2
    assert "bad.tflite: refused by ai-edge-litert" in capsys.readouterr().err
