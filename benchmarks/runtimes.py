"""The processor that figures were measured on, by family: a model's name says less.

An int8 ONNX file by ONNX Runtime's own quantiser, which is what its users would run.

The engines that run a network on a processor, each behind the same two calls.

LiteRT and tflite-runtime read TFLite, ONNX Runtime reads ONNX. OpenVINO reads the TFLite file as
well, once its tensors have names again: it tells them apart by name, and packing leaves none.
"""

import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.export import INPUT
from convert.log_capture import logged
from convert.tflite.editor import written
from convert.tflite.reader import read_model
from glioslice.preprocessing import quantise

CPUINFO = Path("/proc/cpuinfo")
FAMILIES = {"x86_64": "x86-64", "AMD64": "x86-64", "arm64": "aarch64"}
EXTENSIONS = {
    "avx512_vnni": "AVX-512 with VNNI",
    "avx_vnni": "AVX2 with VNNI",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "NEON with int8 matrices",
    "asimddp": "NEON with dot products",
    "asimd": "NEON",
}
"""What int8 kernels are chosen by, the best first, as Linux calls it."""


def processor(cpuinfo: Path = CPUINFO) -> str:
    """Return family, vector extension and cores, such as x86-64, AVX-512 with VNNI, 2 cores."""
    family = FAMILIES.get(platform.machine(), platform.machine())
    try:
        words = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        words = set()
    extension = [said for word, said in EXTENSIONS.items() if word in words][:1]
    return ", ".join([family, *extension, f"{os.cpu_count()} cores"])


def quantised_onnx(fp32: bytes, samples: NDArray[np.float32]) -> bytes:
    """Return a float ONNX model of one input, INPUT, with int8 weights and uint8 values.

    Static quantisation in QDQ form with a scale for each output channel; the extremes over
    `samples` (N, H, W, C) become the ranges. Values are uint8 because ONNX Runtime then computes
    every convolution in integers; with int8 values it leaves some in float on x86-64, and is
    slower. Input and output stay float32.
    """
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch, logged():
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        plain, ready, done = (Path(scratch) / f"{name}.onnx" for name in ("plain", "ready", "done"))
        plain.write_bytes(fp32)
        # Folds constants and merges nodes: what is left over would be quantised on its own.
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            done,
            _Samples(samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return done.read_bytes()


class _Samples:
    """What ONNX Runtime's calibration asks for samples until there are none."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next sample as the network's input."""
        for one in self._left:
            return {INPUT: np.ascontiguousarray(one.transpose(2, 0, 1)[None])}
        return None


@dataclass(frozen=True)
class Model:
    """A network in one precision: TFLite takes (1, H, W, C), ONNX (1, C, H, W)."""

    tflite: bytes
    onnx: bytes


@dataclass(frozen=True)
class Loaded:
    """A network that holds its input: `invoke` runs it, `real` tells what came out of it.

    `real` returns float32, channels last; integers become the numbers that they stand for.
    """

    invoke: Callable[[], NDArray[Any]]
    real: Callable[[NDArray[Any]], NDArray[np.float32]]


Load = Callable[[Model, NDArray[np.float32], int], Loaded]
"""From a model, its input (1, H, W, C) and a number of threads."""


def installed() -> tuple[dict[str, Load], dict[str, str]]:
    """Return the engines that are here, by distribution, and why each of the others is not."""
    here: dict[str, Load] = {}
    missing: dict[str, str] = {}
    for distribution, (module, load) in RUNTIMES.items():
        try:
            here[distribution] = partial(load, import_module(module))
        except ImportError as error:
            missing[distribution] = str(error)
    return here, missing


def version(distribution: str) -> str:
    """Return the installed version of an engine."""
    return metadata.version(distribution)


def _tflite(module: Any, model: Model, given: NDArray[np.float32], threads: int) -> Loaded:
    interpreter = module.Interpreter(model_content=model.tflite, num_threads=threads)
    interpreter.allocate_tensors()
    [taken], [made] = interpreter.get_input_details(), interpreter.get_output_details()
    prepared = _prepared(given, *taken["quantization"])

    def invoke() -> NDArray[Any]:
        interpreter.set_tensor(taken["index"], prepared)
        interpreter.invoke()
        values: NDArray[Any] = interpreter.get_tensor(made["index"])
        return values

    return Loaded(invoke, partial(_real, *made["quantization"]))


def _onnxruntime(module: Any, model: Model, given: NDArray[np.float32], threads: int) -> Loaded:
    options = module.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = module.InferenceSession(model.onnx, options, providers=["CPUExecutionProvider"])
    prepared = {session.get_inputs()[0].name: np.ascontiguousarray(given.transpose(0, 3, 1, 2))}

    def invoke() -> NDArray[Any]:
        [values] = session.run(None, prepared)
        returned: NDArray[Any] = values
        return returned

    return Loaded(invoke, lambda values: np.moveaxis(values, 1, -1))


def _openvino(module: Any, model: Model, given: NDArray[np.float32], threads: int) -> Loaded:
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch:
        file = Path(scratch) / "named.tflite"
        file.write_bytes(_named(model.tflite))
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Or what is called fp32 would run in bfloat16 on processors that have it.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = module.Core().compile_model(file, "CPU", options)
    request = compiled.create_infer_request()
    main = read_model(model.tflite).subgraphs[0]
    taken, made = (_steps(main.tensors[ends[0]]) for ends in (main.inputs, main.outputs))
    prepared = {0: _prepared(given, *taken)}

    def invoke() -> NDArray[Any]:
        values: NDArray[Any] = request.infer(prepared)[0]
        return values

    return Loaded(invoke, partial(_real, *made))


def _named(tflite: bytes) -> bytes:
    model = read_model(tflite)
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = tensor.name or f"tensor_{index}"
    return written(model)


def _steps(tensor: Any) -> tuple[float, int]:
    """Return scale and zero point of a tensor, as the interpreters do: 0, 0 of a float one."""
    quantisation = tensor.quantization
    if quantisation is None or quantisation.scale is None or not len(quantisation.scale):
        return 0.0, 0
    return float(quantisation.scale[0]), int(quantisation.zeroPoint[0])


def _prepared(given: NDArray[np.float32], scale: float, zero_point: int) -> NDArray[Any]:
    return quantise(given, scale, zero_point) if scale else given


def _real(scale: float, zero_point: int, values: NDArray[Any]) -> NDArray[np.float32]:
    numbers = values.astype(np.float32)
    return np.float32(scale) * (numbers - zero_point) if scale else numbers


RUNTIMES: Mapping[str, tuple[str, Callable[[Any, Model, NDArray[np.float32], int], Loaded]]] = {
    "ai-edge-litert": ("ai_edge_litert.interpreter", _tflite),
    "tflite-runtime": ("tflite_runtime.interpreter", _tflite),
    "onnxruntime": ("onnxruntime", _onnxruntime),
    "openvino": ("openvino", _openvino),
}
"""Module and way of loading, by distribution; others must agree with the first that is here."""
