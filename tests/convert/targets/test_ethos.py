from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from convert.targets import ethos
from convert.targets.ethos import TARGET, check
from glioslice.errors import GliosliceError
from tests.convert.targets.graphs import FLOAT, GraphBuilder
from tests.oracle.interpreter import load

SHIPPED = sorted((Path(__file__).resolve().parents[3] / "models").glob("*/*-int8.tflite"))
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_run_whole_on_the_npu(file: Path) -> None:
    content = file.read_bytes()
    result = check(content, file.stem)
    report = result.report
    assert result.ok
    assert report["ops_on_npu"] == report["ops"] == len(load(content).ops)
    assert report["macs_on_npu"] == report["macs"] > 50_000_000
    assert report["estimated"] is True
    assert 1 < report["milliseconds"] < 100
    assert report["sram_bytes"] >= 160 * 192 * 7
    assert "100.0% of" in result.table and "no chip ran it" in result.table
    [compiled] = result.files.values()
    assert compiled[4:8] == b"TFL3" and b"ethos-u" in compiled


def test_the_same_file_comes_out_each_time() -> None:
    content = SHIPPED[0].read_bytes()
    one, other = check(content, "x"), check(content, "x")
    assert one == other
    assert list(one.files) == [f"x-{TARGET}.tflite"]


def test_ops_on_the_cpu_are_counted() -> None:
    graph = GraphBuilder(1, 32, 32, 4)
    last = graph.conv(0, 4, 30, 30, padding=1)
    last = graph.op("DEQUANTIZE", [last], 1, 30, 30, 4, version=2, dtype=FLOAT)
    weights = graph.constant(np.ones((1, 3, 3, 4), np.float32))
    bias = graph.constant(np.zeros(1, np.float32))
    options = schema.Conv2DOptionsT(padding=1, strideH=1, strideW=1)
    graph.op("CONV_2D", [last, weights, bias], 1, 28, 28, 1, options=options, dtype=FLOAT)
    result = check(graph.content, "x")
    report = result.report
    assert not result.ok
    assert (report["ops"], report["ops_on_npu"]) == (3, 1)
    assert report["macs"] == 30 * 30 * 4 * 36 + 28 * 28 * 36
    assert report["macs_on_npu"] == 30 * 30 * 4 * 36
    assert {entry["op"]: entry["count"] for entry in report["left"]} == {
        "DEQUANTIZE": 1, "CONV_2D": 1
    }  # fmt: skip
    assert "Float32" in result.table and "82.1% of" in result.table


def test_a_file_that_vela_cannot_compile_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ethos, "SYSTEM", "Ethos_U55_Of_No_Such_Name")
    with pytest.raises(GliosliceError, match="Vela could not compile"):
        check(SHIPPED[0].read_bytes(), "x")
