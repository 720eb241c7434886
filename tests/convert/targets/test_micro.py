import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convert.pack import pack
from convert.targets import micro, require_tool
from convert.targets.micro import MAX_EXTRA, _smallest, check, resolver_method, run_micro
from glioslice.errors import GliosliceError
from tests.convert.keras_networks import NETWORKS, converted
from tests.convert.runtimes import random_inputs
from tests.convert.targets.graphs import GraphBuilder, numbers

SHIPPED = sorted((Path(__file__).resolve().parents[3] / "models").glob("*/*-int8.tflite"))
ARM = "arm-none-eabi-"


def small() -> bytes:
    graph = GraphBuilder(1, 8, 8, 4)
    last = graph.conv(0, 4, 6, 6, padding=1)
    graph.op("PAD", [last, graph.constant(numbers([0, 0], [1, 1], [1, 1], [0, 0]))], 1, 8, 8, 4)
    return graph.content


@pytest.mark.slow
@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_run_as_the_reference_does(file: Path) -> None:
    result = check(file.read_bytes(), file.stem)
    assert result.ok
    assert result.report["different"] == 0
    assert result.report["values"] == 4 * 160 * 192 * 3


@pytest.mark.slow
@pytest.mark.parametrize("network", sorted(set(NETWORKS) - {"attention"}))
def test_other_networks_run_as_the_reference_does(network: str) -> None:
    assert check(pack(converted(*NETWORKS[network], "int8")), network).ok


@pytest.mark.slow
def test_a_network_that_differs_from_the_reference_is_found() -> None:
    result = check(pack(converted(*NETWORKS["attention"], "int8")), "attention")
    assert not result.ok  # BATCH_MATMUL of 8 bits rounds otherwise
    assert 0 < result.report["different"] < result.report["values"]


@pytest.mark.slow
def test_the_arena_is_as_large_as_it_must_be() -> None:
    content = small()
    result = check(content, "small")
    assert result.ok
    arena = result.report["arena_bytes"]
    runtime = require_tool("tflite_micro.python.tflite_micro.runtime", "micro", "tflite-micro")
    [values] = random_inputs(content, 0)
    run_micro(runtime.Interpreter.from_bytes(content, arena_size=arena), values)
    with pytest.raises(RuntimeError):
        runtime.Interpreter.from_bytes(content, arena_size=arena - 16)


@pytest.mark.parametrize("needed", [4096, 4112, 4992, 4096 + MAX_EXTRA])
def test_the_fewest_bytes_are_found(needed: int) -> None:
    tried: list[int] = []

    def runs(size: int) -> bool:
        tried.append(size)
        return size >= needed

    assert _smallest(runs, 4096) == needed
    assert len(tried) <= 12


def test_a_file_that_needs_far_more_than_it_reports_is_given_up() -> None:
    with pytest.raises(RuntimeError, match="4,096 bytes"):
        _smallest(lambda size: False, 4096)


@pytest.mark.slow
def test_a_single_wrong_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_micro

    def almost(interpreter: Any, values: NDArray[Any]) -> NDArray[Any]:
        output = run(interpreter, values)
        output.flat[5] += 1
        return output

    monkeypatch.setattr(micro, "run_micro", almost)
    result = check(small(), "small")
    assert not result.ok
    assert result.report["different"] == micro.INPUTS


def test_a_rejected_file_gives_the_reason() -> None:
    graph = GraphBuilder(1, 8, 8, 4)
    graph.op("PAD", [0, graph.constant(numbers([9, 9]))], 1, 8, 8, 4)
    result = check(graph.content, "x")
    assert not result.ok
    assert not result.files
    assert result.report["refused"]


def test_several_inputs_are_rejected() -> None:
    graph = GraphBuilder(1, 4)
    graph.tensor((1, 4))
    graph.op("ADD", [0, 1], 1, 4)
    graph.graph.inputs = [0, 1]
    with pytest.raises(GliosliceError, match="one input and one output"):
        check(graph.content, "x")


@pytest.mark.parametrize(
    ("op", "method"),
    [
        ("CONV_2D", "Conv2D"),
        ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighbor"),
        ("RELU6", "Relu6"),
        ("L2_NORMALIZATION", "L2Normalization"),
        ("PADV2", "PadV2"),
        ("SPACE_TO_BATCH_ND", "SpaceToBatchNd"),
    ],
)
def test_resolver_methods(op: str, method: str) -> None:
    assert resolver_method(op) == method


@pytest.fixture
def arm() -> str:
    """The compiler's prefix."""
    if shutil.which(f"{ARM}gcc") is None:
        missing = f"{ARM}gcc is missing: apt-get install gcc-arm-none-eabi"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return ARM


def compiled(folder: Path, *command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FLAGS = ["-mcpu=cortex-m4", "-mthumb", "-ffreestanding"]
FLAGS += ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c"]


@pytest.mark.parametrize("file", SHIPPED[:1], ids=lambda path: path.name)
def test_the_array_compiles_for_an_arm_and_holds_the_file(
    file: Path, arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro, "INPUTS", 1)
    content = file.read_bytes()
    for name, text in check(content, file.stem).files.items():
        (tmp_path / name).write_bytes(text)
    compiled(tmp_path, f"{arm}gcc", "-std=c11", *FLAGS, "model.c", "-o", "model.o")
    sections = compiled(tmp_path, f"{arm}objdump", "-h", "model.o").splitlines()
    [rodata] = [line.split() for line in sections if ".rodata" in line]
    assert int(rodata[2], 16) == len(content)
    assert rodata[-1] == "2**4"
    compiled(tmp_path, f"{arm}objcopy", "-O", "binary", "-j", rodata[1], "model.o", "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == content


@pytest.mark.slow
def test_the_header_registers_the_ops_in_cpp(arm: str, tmp_path: Path) -> None:
    result = check(small(), "small")
    for name, text in result.files.items():
        (tmp_path / name).write_bytes(text)
    assert result.report["ops"] == ["CONV_2D", "PAD"]
    (tmp_path / "main.cpp").write_text(
        """
        #include "model.h"
        struct Resolver {
          int added = 0;
          constexpr void AddConv2D() { added += 1; }
          constexpr void AddPad() { added += 1; }
        };
        constexpr int all() {
          Resolver resolver;
        #define REGISTER(op) resolver.Add##op();
          GLIOSLICE_EACH_OP(REGISTER)
          return resolver.added;
        }
        static_assert(all() == GLIOSLICE_OPS, "one each");
        static_assert(sizeof(glioslice_model) == GLIOSLICE_MODEL_BYTES, "whole");
        static_assert(GLIOSLICE_ARENA_BYTES > 256, "something");
        constexpr int shape[] = GLIOSLICE_INPUT_SHAPE;
        static_assert(sizeof(shape) / sizeof(*shape) == 4 && shape[3] == 4, "1 x 8 x 8 x 4");
        static_assert(GLIOSLICE_OUTPUT_ZERO_POINT == 0, "as made");
        extern "C" const unsigned char *first() { return glioslice_model; }
        """
    )
    compiled(tmp_path, f"{arm}g++", "-std=c++14", *FLAGS, "main.cpp", "-o", "main.o")
    assert "glioslice_model" in compiled(tmp_path, f"{arm}nm", "-u", "main.o")


def test_values_lie_over_the_whole_range() -> None:
    given = {"dtype": np.int8, "shape": np.array([1, 64, 64])}
    values = next(iter(micro._random_inputs(given)))
    assert (int(values.min()), int(values.max())) == (-128, 127)
    assert values.dtype == np.dtype(np.int8)
