"""The engines that run a network on a processor, each behind the same two calls.

LiteRT and tflite-runtime read TFLite, ONNX Runtime reads ONNX. OpenVINO also reads the TFLite file,
once its tensors have names again: it distinguishes them by name, and packing strips names.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.tflite.reader import read_model
from convert.tflite.writer import serialize
from glioslice.preprocessing import quantize


@dataclass(frozen=True)
class ModelFiles:
    """A network in one precision: TFLite takes (1, H, W, C), ONNX (1, C, H, W)."""

    tflite: bytes
    onnx: bytes


@dataclass(frozen=True)
class Loaded:
    """A loaded network with its input: `invoke` runs it and returns its raw output.

    `dequantize` turns that into float32, channels last.
    """

    invoke: Callable[[], NDArray[Any]]
    dequantize: Callable[[NDArray[Any]], NDArray[np.float32]]


Load = Callable[[ModelFiles, NDArray[np.float32], int], Loaded]
"""Loads a model with its input (1, H, W, C) and a number of threads."""


def find_engines() -> tuple[dict[str, Load], dict[str, str]]:
    """Return the installed engines by distribution, and for the others why they do not import."""
    here: dict[str, Load] = {}
    missing: dict[str, str] = {}
    for distribution, (module, load) in RUNTIMES.items():
        try:
            here[distribution] = partial(load, import_module(module))
        except ImportError as error:
            missing[distribution] = str(error)
    return here, missing


def _tflite(module: Any, model: ModelFiles, sample: NDArray[np.float32], threads: int) -> Loaded:
    interpreter = module.Interpreter(model_content=model.tflite, num_threads=threads)
    interpreter.allocate_tensors()
    [input_details], [output_details] = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    prepared = _quantize_input(sample, *input_details["quantization"])

    def invoke() -> NDArray[Any]:
        interpreter.set_tensor(input_details["index"], prepared)
        interpreter.invoke()
        values: NDArray[Any] = interpreter.get_tensor(output_details["index"])
        return values

    return Loaded(invoke, partial(_dequantize, *output_details["quantization"]))


def _onnxruntime(
    module: Any, model: ModelFiles, sample: NDArray[np.float32], threads: int
) -> Loaded:
    options = module.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = module.InferenceSession(model.onnx, options, providers=["CPUExecutionProvider"])
    prepared = {session.get_inputs()[0].name: np.ascontiguousarray(sample.transpose(0, 3, 1, 2))}

    def invoke() -> NDArray[Any]:
        [values] = session.run(None, prepared)
        returned: NDArray[Any] = values
        return returned

    return Loaded(invoke, lambda values: np.moveaxis(values, 1, -1))


def _openvino(module: Any, model: ModelFiles, sample: NDArray[np.float32], threads: int) -> Loaded:
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch:
        file = Path(scratch) / "named.tflite"
        file.write_bytes(_restore_names(model.tflite))
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Otherwise fp32 would run in bfloat16 on processors that have it.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = module.Core().compile_model(file, "CPU", options)
    request = compiled.create_infer_request()
    main = read_model(model.tflite).subgraphs[0]
    input_scale, output_scale = (
        _quantization(main.tensors[ends[0]]) for ends in (main.inputs, main.outputs)
    )
    prepared = {0: _quantize_input(sample, *input_scale)}

    def invoke() -> NDArray[Any]:
        values: NDArray[Any] = request.infer(prepared)[0]
        return values

    return Loaded(invoke, partial(_dequantize, *output_scale))


def _restore_names(tflite: bytes) -> bytes:
    model = read_model(tflite)
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = tensor.name or f"tensor_{index}"
    return serialize(model)


def _quantization(tensor: Any) -> tuple[float, int]:
    """Return scale and zero point of a tensor, 0, 0 for a float one, as the interpreters do."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return 0.0, 0
    return float(quantization.scale[0]), int(quantization.zeroPoint[0])


def _quantize_input(sample: NDArray[np.float32], scale: float, zero_point: int) -> NDArray[Any]:
    return quantize(sample, scale, zero_point) if scale else sample


def _dequantize(scale: float, zero_point: int, values: NDArray[Any]) -> NDArray[np.float32]:
    numbers = values.astype(np.float32)
    return np.float32(scale) * (numbers - zero_point) if scale else numbers


RUNTIMES: Mapping[
    str, tuple[str, Callable[[Any, ModelFiles, NDArray[np.float32], int], Loaded]]
] = {
    "ai-edge-litert": ("ai_edge_litert.interpreter", _tflite),
    "tflite-runtime": ("tflite_runtime.interpreter", _tflite),
    "onnxruntime": ("onnxruntime", _onnxruntime),
    "openvino": ("openvino", _openvino),
}
"""Module and loader by distribution; the first that is installed is what others must agree with."""
