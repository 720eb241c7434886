"""How much of the error at the network's output each layer is to blame for.

The error that has piled up at a tensor does not say where it entered: a channel too wide swallows
its neighbours where it is written, yet its own size hides that in the tensor's signal-to-noise
ratio, which only falls layers later. So each layer alone is taken to int8 in the float network, its
weights rounded as the int8 file has them, what it writes rounded and cut to the int8 file's range,
and the error is measured where it matters, at the logits. Errors of different layers are small and
nearly independent, so their powers add up: a layer's power over the sum of all is its share.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from convert.editing import constant, set_constant, shape_of, written
from convert.reading import list_of, read_model
from convert.running import outputs_of

VERSION = 2
"""Of QUANTIZE and DEQUANTIZE: the first that takes int8."""


def powers(
    fp32: bytes, int8: bytes, same: Mapping[int, int], slices: NDArray[np.float32]
) -> tuple[float, dict[int, float]]:
    """Return the power of the float logits over `slices` (N, X, Y, C), and that of the errors.

    `same` has the int8 file's number of each tensor that the float file computes, and of its input.
    The errors are those that quantising this tensor and the weights behind it alone causes.
    """
    wanted = outputs_of(fp32, slices).astype(np.float64)
    errors = {}
    for index, twin in same.items():
        given = outputs_of(with_one_quantised(fp32, int8, index, twin), slices)
        errors[index] = float(((given - wanted) ** 2).mean())
    return float((wanted**2).mean()), errors


def with_one_quantised(fp32: bytes, int8: bytes, index: int, twin: int) -> bytes:
    """Return the float file with tensor `index`, `twin` in the int8 file, as that one has it."""
    model, other = read_model(fp32), read_model(int8)
    main = model.subgraphs[0]
    makers = [o for o in list_of(main.operators) if index in list_of(o.outputs)]
    for maker in makers:
        _round_weights(model, maker, other, twin)
    quantisation = other.subgraphs[0].tensors[twin].quantization
    if quantisation is None or quantisation.scale is None:
        return written(model)
    coded = _tensor(model, index, schema.TensorType.INT8, quantisation)
    rounded = _tensor(model, index, schema.TensorType.FLOAT32, None)
    readers = [o for o in list_of(main.operators) if index in list_of(o.inputs)]
    for reader in readers:
        reader.inputs = np.array([rounded if i == index else i for i in reader.inputs], np.int32)
    main.outputs = np.array([rounded if i == index else i for i in main.outputs], np.int32)
    for graph in list_of(model.signatureDefs):
        for entry in list_of(graph.outputs):
            entry.tensorIndex = rounded if entry.tensorIndex == index else entry.tensorIndex
    place = main.operators.index(makers[0]) + 1 if makers else 0
    main.operators[place:place] = [
        _operator(model, schema.BuiltinOperator.QUANTIZE, index, coded),
        _operator(model, schema.BuiltinOperator.DEQUANTIZE, coded, rounded),
    ]
    return written(model)


def _round_weights(model: Any, maker: Any, other: Any, twin: int) -> None:
    """Give an op's weights and bias the values that those of the int8 op stand for."""
    theirs = next(o for o in other.subgraphs[0].operators if twin in list_of(o.outputs))
    pairs = zip(list_of(maker.inputs), list_of(theirs.inputs), strict=False)  # one may lack a bias
    for own, coded in ((o, c) for o, c in pairs if o != -1 and c != -1):
        tensor = model.subgraphs[0].tensors[own]
        source = other.subgraphs[0].tensors[coded]
        values, quantisation = constant(other, source), source.quantization
        if values is None or tensor.type != schema.TensorType.FLOAT32:
            continue
        if quantisation is None or quantisation.scale is None:  # left in float
            continue
        along = [1] * values.ndim
        along[quantisation.quantizedDimension] = len(quantisation.scale)
        scales = np.asarray(quantisation.scale, np.float64).reshape(along)
        zeros = np.asarray(quantisation.zeroPoint, np.float64).reshape(along)
        set_constant(model, tensor, (values - zeros) * scales)


def _tensor(model: Any, like: int, kind: int, quantisation: Any) -> int:
    main = model.subgraphs[0]
    made = schema.TensorT()
    made.shape = np.array(shape_of(main.tensors[like]), np.int32)
    made.type, made.quantization, made.name = kind, quantisation, b""
    main.tensors.append(made)
    return len(main.tensors) - 1


def _operator(model: Any, code: int, read: int, made: int) -> Any:
    known = schema.OperatorCodeT()
    known.builtinCode = known.deprecatedBuiltinCode = code
    known.version = VERSION
    model.operatorCodes.append(known)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = np.array([read], np.int32), np.array([made], np.int32)
    return operator
