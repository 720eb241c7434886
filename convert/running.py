"""The values of every tensor while a file runs, by the reference kernels: alike on all machines."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.chatter import logged
from convert.editing import flowing
from convert.reading import read_model
from glioslice.errors import GliosliceError

Values = dict[int, NDArray[np.float32]]


def values_of(content: bytes, slices: NDArray[np.float32]) -> Iterator[Values]:
    """Yield for each slice (X, Y, C) what every tensor but the constants holds, by its index.

    Integers come as the numbers that they stand for. Raises GliosliceError if the file has not one
    input and one output, or the runtime refuses it.
    """
    model = read_model(content)
    main = model.subgraphs[0]
    interpreter = _interpreter(content)
    given, wanted = interpreter.get_input_details(), interpreter.get_output_details()
    if len(given) != 1 or len(wanted) != 1:
        raise GliosliceError("expected a file with one input and one output")
    indices = {int(main.inputs[0])}
    for operator in main.operators:
        indices |= {*flowing(model, operator.outputs)}
    for one in slices:
        interpreter.set_tensor(given[0]["index"], _as_taken(one[np.newaxis], given[0]))
        interpreter.invoke()
        yield {
            index: real(interpreter.get_tensor(index), main.tensors[index].quantization)
            for index in sorted(indices)
        }


def outputs_of(content: bytes, slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what a float file makes of the slices, (N, ...)."""
    interpreter = _interpreter(content, keep=False)
    given, wanted = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    made = []
    for one in slices:
        interpreter.set_tensor(given["index"], one[np.newaxis])
        interpreter.invoke()
        made.append(interpreter.get_tensor(wanted["index"])[0])
    return np.stack(made)


def real(values: NDArray[Any], quantisation: Any) -> NDArray[np.float32]:
    """Return the numbers that a tensor of one scale stands for: scale (q - zero point)."""
    if values.dtype == np.float32:
        return values
    scale, zero_point = quantisation.scale[0], int(quantisation.zeroPoint[0])
    numbers: NDArray[np.float32] = np.float32(scale) * (values.astype(np.float32) - zero_point)
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
    with logged():
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            model_content=content,
            num_threads=1,
            experimental_op_resolver_type=(
                OpResolverType.BUILTIN_REF if keep else OpResolverType.AUTO
            ),
            experimental_preserve_all_tensors=keep,
        )
        interpreter.allocate_tensors()
    return interpreter
