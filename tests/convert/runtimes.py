"""Run a TFLite file in every supported runtime."""

from collections.abc import Callable
from typing import Any

import ai_edge_litert.interpreter as litert
import numpy as np
import tflite_runtime.interpreter as tflite_runtime
from numpy.typing import NDArray
from tflite_micro.python.tflite_micro import runtime as micro

Arrays = list[NDArray[Any]]
ARENA = 4_000_000


def random_inputs(content: bytes, seed: int) -> Arrays:
    """Values of every input's shape and type, over the whole range of a quantised one."""
    rng = np.random.default_rng(seed)
    inputs: Arrays = []
    for given in litert.Interpreter(model_content=content).get_input_details():
        dtype = np.dtype(given["dtype"])
        if dtype.kind == "i":
            limits = np.iinfo(dtype)
            inputs.append(rng.integers(limits.min, limits.max, given["shape"], dtype, True))
        else:
            inputs.append(rng.normal(0, 1, given["shape"]).astype(dtype))
    return inputs


def _interpreted(interpreter: Any, inputs: Arrays) -> Arrays:
    interpreter.allocate_tensors()
    for given, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(given["index"], values)
    interpreter.invoke()
    return [np.array(interpreter.get_tensor(o["index"])) for o in interpreter.get_output_details()]


def in_litert(content: bytes, inputs: Arrays) -> Arrays:
    return _interpreted(litert.Interpreter(model_content=content, num_threads=1), inputs)


def in_litert_reference(content: bytes, inputs: Arrays) -> Arrays:
    kernels = litert.OpResolverType.BUILTIN_REF
    interpreter = litert.Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    return _interpreted(interpreter, inputs)


def in_tflite_runtime(content: bytes, inputs: Arrays) -> Arrays:
    return _interpreted(tflite_runtime.Interpreter(model_content=content, num_threads=1), inputs)


def in_micro(content: bytes, inputs: Arrays) -> Arrays:
    """Only the first output: the Python interface does not give their number."""
    interpreter = micro.Interpreter.from_bytes(content, arena_size=ARENA)
    for index, values in enumerate(inputs):
        interpreter.set_input(values, index)
    interpreter.invoke()
    return [np.array(interpreter.get_output(0))]


RUNTIMES: dict[str, Callable[[bytes, Arrays], Arrays]] = {
    "LiteRT": in_litert,
    "LiteRT reference": in_litert_reference,
    "tflite-runtime": in_tflite_runtime,
    "TFLite Micro": in_micro,
}


def run(runtime: str, content: bytes, inputs: Arrays) -> Arrays | None:
    """The outputs of a runtime; None if it rejects the file."""
    try:
        return RUNTIMES[runtime](content, inputs)
    except (RuntimeError, ValueError):
        return None


def same_outputs(before: bytes, after: bytes, seeds: int = 2) -> set[str]:
    """The runtimes that run the file; their outputs must have the same bits before and after."""
    ran = set()
    for seed in range(seeds):
        inputs = random_inputs(before, seed)
        for runtime in RUNTIMES:
            wanted, given = run(runtime, before, inputs), run(runtime, after, inputs)
            assert (wanted is None) == (given is None), runtime
            if wanted is None or given is None:
                continue
            ran.add(runtime)
            for one, other in zip(wanted, given, strict=True):
                assert one.dtype == other.dtype
                assert one.tobytes() == other.tobytes(), runtime
    return ran
