"""Run a TFLite file on slices and return all its tensors or its output.

`tensor_values` uses the reference kernels, which give the same values on every machine;
`output_values` uses the kernels that a board uses.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from convert.log_capture import capture_output
from convert.tflite.reader import list_of, non_constant, read_model
from glioslice.errors import GliosliceError

Values = dict[int, NDArray[np.float32]]
"""The values of tensors, by index."""


def tensor_values(content: bytes, slices: NDArray[np.float32]) -> Iterator[Values]:
    """Yield the values of every tensor but the constants, for each slice (X, Y, C).

    Quantized integers are returned as the real numbers that they represent; tensors that represent
    none are left out. Raises GliosliceError if the file has several inputs or outputs, or the
    runtime rejects it.
    """
    model = read_model(content)
    main = model.subgraphs[0]
    interpreter = _make_interpreter(content)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise GliosliceError("expected a file with one input and one output")
    indices = {int(main.inputs[0])}
    for operator in main.operators:
        indices |= {i for i in non_constant(model, operator.outputs) if is_real(main.tensors[i])}
    for one in slices:
        interpreter.set_tensor(inputs[0]["index"], _to_input(one[np.newaxis], inputs[0]))
        interpreter.invoke()
        yield {
            index: _dequantize(interpreter.get_tensor(index), scale_of(main.tensors[index]))
            for index in sorted(indices)
        }


def output_values(content: bytes, slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the output (N, ...) of a file for the slices (N, X, Y, C), as real numbers."""
    interpreter = _make_interpreter(content, all_tensors=False)
    [taken], [computed] = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for one in slices:
        interpreter.set_tensor(taken["index"], _to_input(one[np.newaxis], taken))
        interpreter.invoke()
        values = interpreter.get_tensor(computed["index"])[0]
        outputs.append(_dequantize(values, computed["quantization"]))
    return np.stack(outputs)


def is_real(tensor: Any) -> bool:
    """Return whether a tensor represents real numbers: it is float32, or int8 with one scale."""
    kinds = schema.TensorType
    return tensor.type == kinds.FLOAT32 or (
        tensor.type == kinds.INT8 and scale_of(tensor) is not None
    )


def scale_of(tensor: Any) -> tuple[float, int] | None:
    """Return scale and zero point if the whole tensor has a single one."""
    of = tensor.quantization
    if of is None or len(list_of(of.scale)) != 1:
        return None
    return float(of.scale[0]), int(of.zeroPoint[0])


def _dequantize(values: NDArray[Any], scale: tuple[float, int] | None) -> NDArray[np.float32]:
    """Return the real numbers that values represent: scale (q - zero point)."""
    if values.dtype == np.float32 or scale is None:
        return values
    numbers: NDArray[np.float32] = np.float32(scale[0]) * (values.astype(np.float32) - scale[1])
    return numbers


def snr(wanted: NDArray[np.float32], given: NDArray[np.float32]) -> float:
    """Return the signal-to-noise ratio 10 log10(sum w^2 / sum (w - g)^2) in dB, in float64.

    It is inf where `given` equals `wanted`, and nan where `given` is not finite. Between a float
    file and its int8 file it is the signal-to-quantization-noise ratio (SQNR).
    """
    w = wanted.astype(np.float64)
    return decibels(float((w**2).sum()), float(((w - given) ** 2).sum()))


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise) of two powers; inf without noise, -inf without signal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if noise == 0:
            return float("inf")
        return float(10 * np.log10(np.float64(signal) / noise))


def _to_input(values: NDArray[np.float32], details: dict[str, Any]) -> NDArray[Any]:
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    steps = np.rint(values / np.float32(scale)) + zero_point
    limits = np.iinfo(details["dtype"])
    codes: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(details["dtype"])
    return codes


def _make_interpreter(content: bytes, *, all_tensors: bool = True) -> Any:
    """Return an interpreter; with `all_tensors` it keeps them and uses the reference kernels.

    Those lack a few ops (ELU). For them the usual kernels are used, which may differ between
    machines.
    """
    with capture_output():
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        preferred = OpResolverType.BUILTIN_REF if all_tensors else OpResolverType.AUTO
        for kernels in (preferred, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
            try:
                interpreter = Interpreter(
                    model_content=content,
                    num_threads=1,
                    experimental_op_resolver_type=kernels,
                    experimental_preserve_all_tensors=all_tensors,
                )
                interpreter.allocate_tensors()
            except ValueError:
                if kernels != preferred:
                    raise
            else:
                break
    return interpreter
