"""Engines are checked first, timed interleaved, and skipped by name where they are missing."""

import argparse
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import engines, mobilenet_baseline, runtimes
from benchmarks.engines import (
    BOARD_ENGINE,
    GOAL,
    PAGE,
    QUICK,
    TIMES,
    Entry,
    TimedNetwork,
    correlation,
    goal_line,
    load_entries,
    logit_dice,
    machine_line,
    reference_network,
    shipped_network,
    summarize,
    time_entries,
    times_table,
)
from benchmarks.pages import processor
from benchmarks.runtimes import Loaded, ModelFiles, find_engines
from convert.log_capture import capture_output
from convert.tflite.reader import Tensor, ops_of, read_model
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import find_model, read_card

GIVEN = np.ones((1, 2, 2, 1), np.float32)
NOTHING = ModelFiles(b"", b"")


def network(name: str, macs: int, *, reference: bool = False) -> TimedNetwork:
    return TimedNetwork(name, {"int8": NOTHING}, GIVEN, macs, logit_dice, 0.9, reference)


def entry(engine: str, of: TimedNetwork, log: list[str]) -> Entry:
    def invoke() -> NDArray[np.float32]:
        log.append(f"{of.name} on {engine}")
        return GIVEN

    return Entry(engine, of, "int8", 1, 1.0, invoke)


def test_entries_run_in_turn_and_the_second_run_counts() -> None:
    log: list[str] = []
    loaded = [entry("a", network("x", 1), log), entry("b", network("x", 1), log)]
    ticks = count()

    def clock() -> float:
        log.append("tick")
        return float(next(ticks))

    measured = time_entries(loaded, 3, clock)
    assert log == [on for e in "ab" for on in (f"x on {e}", "tick") * 2] * 3
    assert [times for _, times in measured] == [[1000.0] * 3] * 2


def test_rows_compare_with_the_reference_on_the_same_engine() -> None:
    x, r = network("x", 4_000_000), network("r", 9_000_000, reference=True)
    times = [2.0] * 8 + [5.0] * 3
    measured = [(entry("a", x, []), times), (entry("b", x, []), times), (entry("a", r, []), [8.0])]
    first, second, third = summarize(measured)
    assert (first.median, first.p90, first.gmacs, first.ratio) == (2.0, 5.0, 2.0, 0.25)
    assert (second.ratio, third.ratio) == (None, None)


@pytest.mark.parametrize("name", list(runtimes.RUNTIMES))
def test_a_missing_engine_is_skipped_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, runtimes.RUNTIMES[name][0], None)
    here, missing = find_engines()
    assert name not in here
    assert name in missing
    assert set(here) | set(missing) == set(runtimes.RUNTIMES)
    result = {"machine": "m", "engines": {}, "rounds": 1, "skipped": missing}
    assert f"Not installed, so skipped: {name}." in machine_line(result)


@pytest.mark.parametrize("found", [-GIVEN, GIVEN * np.nan])
def test_a_broken_network_is_not_timed(found: NDArray[np.float32]) -> None:
    def load(sample: NDArray[np.float32]) -> runtimes.Load:
        return lambda *_: Loaded(lambda: sample, lambda values: values)

    def product(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        return float((one * other).mean())  # not a number where an output is none

    x, whole = replace(network("x", 1), agreement=product), {n: load(GIVEN) for n in ("a", "b")}
    assert len(load_entries(whole, [x])) == 4
    with pytest.raises(GliosliceError, match="x in int8 on bad: agrees with a by"):
        load_entries(whole | {"bad": load(found)}, [x])


def test_agreement() -> None:
    one, other = np.array([1.0, 1, 1, -1], np.float32), np.array([9.0, 9, -9, -9], np.float32)
    assert logit_dice(one, one) == 1
    assert logit_dice(one, other) == pytest.approx(0.8)
    assert correlation(one, 3 * one) == pytest.approx(1)
    assert correlation(one, -one) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("text", "extension"),
    [
        ("flags\t\t: fma avx2 avx512f avx512_vnni", "AVX-512 with VNNI, "),
        ("flags\t\t: fma avx2", "AVX2, "),
        ("Features\t: fp asimd asimddp", "NEON with dot products, "),
        ("model name\t: none of them", ""),
    ],
)
def test_the_processor_is_named_by_family(text: str, extension: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    family, rest = processor(tmp_path / "cpuinfo").split(", ", 1)
    assert rest.startswith(extension)
    assert rest.removeprefix(extension).endswith(" cores")
    assert processor(tmp_path / "missing").startswith(f"{family}, ")


def test_the_page_has_the_figures_of_the_shipped_file() -> None:
    committed, page = read_json(TIMES), PAGE.read_text(encoding="utf-8")
    assert times_table(committed) in page
    assert machine_line(committed) in page
    assert goal_line(committed) in page
    mine, _ = committed["networks"].values()
    # The time depends on the operations, not on the weights.
    card = read_card(find_model().parent)
    assert mine["macs"] == card.content["network"]["macs"], "run `make engines` on an idle machine"


@pytest.fixture(scope="session")
def networks() -> tuple[TimedNetwork, TimedNetwork]:
    return shipped_network(), reference_network()


@pytest.mark.slow
def test_mobilenet_is_mobilenet(networks: tuple[TimedNetwork, TimedNetwork]) -> None:
    _, reference = networks
    # Sandler et al., CVPR 2018, table 4: 300 million.
    assert reference.macs == 300_774_272
    assert shapes(reference.models["int8"].tflite) == shapes(keras_mobilenet())


def shapes(tflite: bytes) -> Counter[tuple[object, ...]]:
    """How often there is which op, with which weights and output; Keras leaves the batch open."""

    def sizes(tensor: Tensor | None) -> tuple[int, ...]:
        return tuple(n for n in tensor.shape if abs(n) != 1) if tensor else ()

    found = [op for op in ops_of(read_model(tflite)) if op.name != "SOFTMAX"]
    return Counter((op.name, *map(sizes, (*op.inputs[1:2], *op.outputs))) for op in found)


def keras_mobilenet() -> bytes:
    """Keras's own, without weights: its float file has the ops of its int8 file."""
    with capture_output():
        import tensorflow as tf
        from tf_keras.applications import MobileNetV2

        return bytes(tf.lite.TFLiteConverter.from_keras_model(MobileNetV2(weights=None)).convert())


@pytest.mark.slow
def test_the_reference_is_the_same_each_time(networks: tuple[TimedNetwork, TimedNetwork]) -> None:
    _, reference = networks
    mobilenet_baseline.onnx_file.cache_clear()
    mobilenet_baseline.int8_file.cache_clear()
    assert mobilenet_baseline.int8_file() == reference.models["int8"].tflite


@pytest.mark.slow
def test_a_slice_takes_at_most_half_of_mobilenets_time(
    networks: tuple[TimedNetwork, TimedNetwork],
) -> None:
    here, _ = find_engines()
    loaded = load_entries({BOARD_ENGINE: here[BOARD_ENGINE]}, networks, threads=(1,))
    # On one thread the process's own time is that of the network; its best tenth is that of
    # moments when nobody else emptied the caches.
    measured = time_entries(
        [e for e in loaded if e.precision == "int8"], 60, clock=time.process_time
    )
    mine, other = (float(np.percentile(times, 10)) for _, times in measured)
    assert mine / other <= GOAL


@pytest.mark.slow
def test_all_engines_that_are_here(
    networks: tuple[TimedNetwork, TimedNetwork],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(engines, "shipped_network", lambda: networks[0])
    monkeypatch.setattr(engines, "reference_network", lambda: networks[1])
    unknown = {"no-such-engine": ("no_such_engine", runtimes.RUNTIMES["openvino"][1])}
    monkeypatch.setattr(runtimes, "RUNTIMES", {**runtimes.RUNTIMES, **unknown})
    before = TIMES.read_bytes(), PAGE.read_bytes()
    engines.time_engines(argparse.Namespace(quick=True))
    assert (TIMES.read_bytes(), PAGE.read_bytes()) == before
    output = capsys.readouterr().out
    assert "no-such-engine is skipped: " in output
    for name in find_engines()[0]:
        for threads in (1, 2):
            assert f"| {name} | {threads} | " in output
    assert QUICK < 10
