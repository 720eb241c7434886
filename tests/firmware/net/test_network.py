"""The network in C: bit-equal to LiteRT's reference kernels, layer by layer."""

import shutil
import subprocess
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from benchmarks import firmware_network as bench
from benchmarks.firmware_network import CORES, FIGURES, NET, HarnessResult
from convert.targets import firmware
from convert.targets.firmware_layers import FirmwareLayer, read_layers
from convert.targets.firmware_plan import Form, make_plan
from convert.tflite.reader import read_model
from device.goldens import read_slices
from glioslice.errors import GliosliceError
from glioslice.labels import to_labels
from glioslice.model_card import shipped_folder
from tests.oracle.small_files import litert, random_int8

quiet = pytest.mark.filterwarnings("ignore:.*Enabling `experimental_preserve_all_tensors`")
pytestmark = quiet

SANITIZED = (
    "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)  # fmt: skip
MODELS: tuple[tuple[str, Form], ...] = (
    ("compact", "fast"),
    ("compact", "small"),
    ("nano", "small"),
)
by_model = pytest.mark.parametrize(("size", "form"), MODELS)
by_compiler = pytest.mark.parametrize("compiler", ["gcc", "clang"])


@cache
def shipped(size: str) -> bytes:
    return (shipped_folder(size) / f"{size}-int8.tflite").read_bytes()


def golden(count: int) -> NDArray[np.int8]:
    """Golden slices, the one with every label first."""
    return read_slices()[0][[3, 2, 4, 0, 1]][:count]


def extreme_slices() -> NDArray[np.int8]:
    """Random values over the whole range, the two ends alone, and each end everywhere."""
    rng = np.random.default_rng(0)
    shape = (160, 192, 4)
    return np.stack(
        [
            random_int8(rng, shape),
            rng.choice(np.array([-128, 127], np.int8), shape),
            np.full(shape, -128, np.int8),
            np.full(shape, 127, np.int8),
        ]
    )


def expect_reference(
    content: bytes,
    form: Form,
    slices: NDArray[np.int8],
    results: Sequence[HarnessResult],
    *,
    traced: bool = True,
) -> None:
    """Check labels, logits and the checksum of each layer against LiteRT's reference kernels."""
    layers = make_plan(read_layers(read_model(content)), form).layers
    assert len(results) == len(slices)
    for image, result in zip(slices, results, strict=True):
        reference = litert(content, image[None])
        logits = reference.get_tensor(layers[-1].tensor)[0]
        np.testing.assert_array_equal(result.logits, logits)
        regions = np.moveaxis(logits > layers[-1].zero_point, -1, 0)
        np.testing.assert_array_equal(result.labels, to_labels(regions))
        if not traced:
            continue
        wrong = [
            layer.name
            for layer, crc in zip(layers, result.checks, strict=True)
            if layer.kind != "input" and crc != checksum(layer, reference)
        ]
        assert not wrong


def checksum(layer: FirmwareLayer, reference: Any) -> int:
    """The checksum of a layer's output as it is stored: padding channels hold the zero point."""
    values = reference.get_tensor(layer.tensor)[0]
    padding = ((0, 0), (0, 0), (0, layer.stored - layer.channels))
    return zlib.crc32(np.pad(values, padding, constant_values=layer.zero_point).tobytes())


def run_on_host(
    content: bytes, form: Form, slices: NDArray[np.int8], folder: Path, compiler: str,
    flags: Sequence[str] = ("-O1",),
) -> list[HarnessResult]:  # fmt: skip
    layers = bench.write_tables(content, "network", folder)
    program = bench.build_for_host(compiler, folder, form, flags)
    return bench.run_slices(None, program, slices, len(make_plan(layers, form).layers))


def run_in_qemu(
    content: bytes, form: Form, slices: NDArray[np.int8], folder: Path, core: str
) -> list[HarnessResult]:
    layers = bench.write_tables(content, "network", folder)
    chosen = CORES[core]
    program = bench.build_for_core(chosen, chosen.kernels, folder, form, trace=True)
    return bench.run_slices(chosen, program, slices, len(make_plan(layers, form).layers))


def test_a_golden_slice(tmp_path: Path) -> None:
    results = run_on_host(shipped("compact"), "fast", golden(1), tmp_path, "gcc")
    expect_reference(shipped("compact"), "fast", golden(1), results)
    assert set(np.unique(results[0].labels)) == {0, 1, 2, 3}


@pytest.mark.slow
@by_compiler
@by_model
def test_host_with_sanitizers(size: str, form: Form, compiler: str, tmp_path: Path) -> None:
    slices = np.concatenate([golden(5), extreme_slices()])
    results = run_on_host(shipped(size), form, slices, tmp_path, compiler, SANITIZED)
    expect_reference(shipped(size), form, slices, results)


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES)
@by_model
def test_in_qemu(size: str, form: Form, core: str, tmp_path: Path) -> None:
    slices = np.concatenate([golden(1), extreme_slices()[:1]])
    results = run_in_qemu(shipped(size), form, slices, tmp_path, core)
    expect_reference(shipped(size), form, slices, results)


@pytest.mark.slow
@pytest.mark.parametrize("core", ["host", "M7", "M55"])
@pytest.mark.parametrize("seed", range(2))
def test_random_networks(seed: int, core: str, tmp_path: Path) -> None:
    """Nothing depends on the weights that happen to be shipped."""
    content = random_network(seed)
    slices = np.concatenate([golden(1), extreme_slices()[:2]])
    if core == "host":
        results = run_on_host(content, "small", slices, tmp_path, "gcc", SANITIZED)
    else:
        results = run_in_qemu(content, "small", slices, tmp_path, core)
    expect_reference(content, "small", slices, results)
    for result in results:
        assert len(np.unique(result.logits)) > 5


def random_network(seed: int) -> bytes:
    """The shipped architecture with other weights, biases, scales and zero points of its ends.

    Sums are rescaled by factors that differ by powers of two from channel to channel, so that every
    layer has values of all sizes, and some channels saturate or vanish.
    """
    rng = np.random.default_rng(seed)
    model = read_model(shipped(("compact", "nano")[seed % 2]))
    graph = model.subgraphs[0]
    tensors = graph.tensors
    for index in (graph.inputs[0], *(op.outputs[0] for op in graph.operators)):
        if tensors[index].quantization.zeroPoint[0] != -128:
            tensors[index].quantization.zeroPoint = np.array([37 * (-1) ** seed], np.int64)
    for op in graph.operators:
        if model.operatorCodes[op.opcodeIndex].builtinCode != schema.BuiltinOperator.CONV_2D:
            continue
        given, filters, biases = (tensors[i] for i in op.inputs)
        count, values = filters.shape[0], int(np.prod(filters.shape))
        weights = rng.integers(-127, 128, values, dtype=np.int8)
        spread = 127 * 90 * np.sqrt(values / count) / 70
        set_buffer(model, filters, weights)
        set_buffer(model, biases, rng.integers(-60 * 900, 60 * 900, count).astype(np.int32))
        factor = 2 ** rng.uniform(-2, 2, count) / spread
        scales = (factor * tensors[op.outputs[0]].quantization.scale[0]).astype(np.float32)
        scales /= given.quantization.scale[0]
        filters.quantization.scale = scales
        filters.quantization.zeroPoint = np.zeros(count, np.int64)
        biases.quantization.scale = scales * given.quantization.scale[0]
        biases.quantization.zeroPoint = np.zeros(count, np.int64)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def set_buffer(model: Any, tensor: Any, values: NDArray[Any]) -> None:
    model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
    tensor.buffer = len(model.buffers) - 1


GOALS: dict[tuple[str, str, str, Form], tuple[float, int, int]] = {
    ("compact", "M7", "DSP", "fast"): (60e6, 192_000, 100_000),
    ("compact", "M55", "MVE", "fast"): (20e6, 192_000, 60_000),
    ("compact", "M4", "DSP", "small"): (80e6, 80_000, 120_000),
    ("compact", "M55", "MVE", "small"): (28e6, 80_000, 60_000),
}
"""Instructions, bytes of RAM and bytes of flash that must not be exceeded."""


@pytest.mark.slow
@pytest.mark.parametrize("run", GOALS, ids="-".join)
def test_costs(run: tuple[str, str, str, Form], tmp_path: Path) -> None:
    """The measured counts stay within the goals, and are those of the committed figures."""
    size, core, kernels, form = run
    layers = bench.write_tables(shipped(size), size, tmp_path)
    assert len(layers) > 1
    program = bench.build_for_core(CORES[core], kernels, tmp_path, form)
    [result] = bench.run_slices(CORES[core], program, golden(1), 0)
    expect_reference(shipped(size), form, golden(1), [result], traced=False)
    ram, flash = bench.network_sizes(CORES[core], kernels, tmp_path, form)
    most_instructions, most_ram, most_flash = GOALS[run]
    assert 15e6 < result.instructions <= most_instructions
    assert 60_000 < ram <= most_ram
    assert 50_000 < flash <= most_flash
    assert 100 < result.stack <= 1024
    [row] = [r for r in bench.read_figures() if (r.model, r.core, r.kernels, r.form) == run]
    assert abs(row.instructions - result.instructions) <= 0.02 * row.instructions
    assert abs(row.ram - ram) <= 0.02 * row.ram and abs(row.flash - flash) <= 0.02 * row.flash


def test_a_form_that_is_too_large_does_not_compile(tmp_path: Path) -> None:
    bench.write_tables(shipped("nano"), "nano", tmp_path)
    with pytest.raises(GliosliceError, match="compile with -DNETWORK_SMALL=1"):
        bench.build_for_host("gcc", tmp_path, "fast", ("-O0",))


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES)
def test_analyzer_of_gcc_reports_nothing(core: str, tmp_path: Path) -> None:
    bench.write_tables(shipped("compact"), "compact", tmp_path)
    files = [*sorted(NET.glob("*.c")), NET / "bench" / "main.c", NET / "bench" / "qemu.c"]
    for small in (0, 1):
        for file in files:
            command = [bench.COMPILER, *bench.FLAGS, "-fanalyzer", "-mthumb", *CORES[core].flags]
            command += [f"-DNETWORK_SMALL={small}", f"-I{tmp_path}", f"-I{NET}", "-c", str(file)]
            done = subprocess.run([*command, "-o", str(tmp_path / "x.o")], capture_output=True)
            assert done.returncode == 0, done.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize("kernels", bench.KERNELS)
def test_cppcheck_reports_nothing(kernels: str, tmp_path: Path) -> None:
    assert shutil.which("cppcheck")
    bench.write_tables(shipped("compact"), "compact", tmp_path)
    command = [
        "cppcheck",
        "--quiet",
        "--std=c99",
        "--error-exitcode=1",
        f"-I{tmp_path}",
        f"-I{NET}",
    ]
    command += ["--enable=warning,style,performance,portability", "--suppress=missingIncludeSystem"]
    command += [f"-DNETWORK_KERNELS={bench.KERNELS[kernels]}", "-DNETWORK_SMALL=1"]
    files = [*sorted(NET.glob("*.c")), *sorted((NET / "bench").glob("*.c"))]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_committed_figures_are_of_every_run() -> None:
    rows = [(r.model, r.core, r.kernels, r.form) for r in bench.read_figures(FIGURES)]
    assert rows == list(bench.RUNS)


def test_missing_results_are_an_error(tmp_path: Path) -> None:
    bench.write_tables(shipped("compact"), "compact", tmp_path)
    program = bench.build_for_host("gcc", tmp_path, "fast", ("-O0",))
    with pytest.raises(GliosliceError, match="failed with 1"):
        bench.run_slices(None, program, golden(0), 33)
    assert firmware.SOURCE in {path.name for path in tmp_path.iterdir()}
