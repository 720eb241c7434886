"""What a file computes, tensor by tensor or at its end.

Every tensor comes from the reference kernels, alike on all machines, the output alone from those
that a board uses.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from convert.log_capture import logged
from convert.tflite.editor import flowing
from convert.tflite.reader import list_of, read_model
from glioslice.errors import GliosliceError

Values = dict[int, NDArray[np.float32]]


def values_of(content: bytes, slices: NDArray[np.float32]) -> Iterator[Values]:
    """Yield for each slice (X, Y, C) what every tensor but the constants holds, by its index.

    Integers come as the numbers that they stand for; those that stand for none are left out. Raises
    GliosliceError if the file has not one input and one output, or the runtime refuses it.
    """
    model = read_model(content)
    main = model.subgraphs[0]
    interpreter = _interpreter(content)
    given, wanted = interpreter.get_input_details(), interpreter.get_output_details()
    if len(given) != 1 or len(wanted) != 1:
        raise GliosliceError("expected a file with one input and one output")
    indices = {int(main.inputs[0])}
    for operator in main.operators:
        indices |= {i for i in flowing(model, operator.outputs) if is_real(main.tensors[i])}
    for one in slices:
        interpreter.set_tensor(given[0]["index"], _as_taken(one[np.newaxis], given[0]))
        interpreter.invoke()
        yield {
            index: _real(interpreter.get_tensor(index), scale_of(main.tensors[index]))
            for index in sorted(indices)
        }


def outputs_of(content: bytes, slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what a file makes of the slices, (N, ...), as the numbers that integers stand for."""
    interpreter = _interpreter(content, keep=False)
    given, wanted = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    made = []
    for one in slices:
        interpreter.set_tensor(given["index"], _as_taken(one[np.newaxis], given))
        interpreter.invoke()
        made.append(_real(interpreter.get_tensor(wanted["index"])[0], wanted["quantization"]))
    return np.stack(made)


def is_real(tensor: Any) -> bool:
    """Return whether a tensor stands for real numbers: it is float32, or int8 with one scale."""
    kinds = schema.TensorType
    return tensor.type == kinds.FLOAT32 or (
        tensor.type == kinds.INT8 and scale_of(tensor) is not None
    )


def scale_of(tensor: Any) -> tuple[float, int] | None:
    """Return scale and zero point where one holds for a whole tensor."""
    of = tensor.quantization
    if of is None or len(list_of(of.scale)) != 1:
        return None
    return float(of.scale[0]), int(of.zeroPoint[0])


def _real(values: NDArray[Any], scale: tuple[float, int] | None) -> NDArray[np.float32]:
    """Return the numbers that values stand for: scale (q - zero point)."""
    if values.dtype == np.float32 or scale is None:
        return values
    numbers: NDArray[np.float32] = np.float32(scale[0]) * (values.astype(np.float32) - scale[1])
    return numbers


def snr(wanted: NDArray[np.float32], given: NDArray[np.float32]) -> float:
    """Return 10 log10(sum w^2 / sum (w - g)^2) in dB; inf where equal, nan where g is not finite.

    The sums are taken in float64.
    """
    w = wanted.astype(np.float64)
    return decibels(float((w**2).sum()), float(((w - given) ** 2).sum()))


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise); inf without noise, -inf without signal, else nan."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if noise == 0:
            return float("inf")
        return float(10 * np.log10(np.float64(signal) / noise))


def _as_taken(values: NDArray[np.float32], details: dict[str, Any]) -> NDArray[Any]:
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    steps = np.rint(values / np.float32(scale)) + zero_point
    limits = np.iinfo(details["dtype"])
    taken: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(details["dtype"])
    return taken


def _interpreter(content: bytes, *, keep: bool = True) -> Any:
    """Return what runs a file; with `keep` every tensor of it, by the reference kernels.

    Those lack a few ops (ELU): there the usual ones stand in, which may differ between machines.
    """
    with logged():
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kinds = OpResolverType
        wanted = kinds.BUILTIN_REF if keep else kinds.AUTO
        for kernels in (wanted, kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
            try:
                interpreter = Interpreter(
                    model_content=content,
                    num_threads=1,
                    experimental_op_resolver_type=kernels,
                    experimental_preserve_all_tensors=keep,
                )
                interpreter.allocate_tensors()
            except ValueError:
                if kernels != wanted:
                    raise
            else:
                break
    return interpreter
