"""The engines that run a network on a processor, each behind the same two calls.

LiteRT and tflite-runtime read TFLite, ONNX Runtime reads ONNX. OpenVINO reads the TFLite file as
well, once its tensors have names again: it tells them apart by name, and packing leaves none.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.editing import written
from convert.reading import read_model
from glioslice.slices import quantise


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
