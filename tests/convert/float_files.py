"""Float TFLite files built op by op, without a converter."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from convert.tflite.reader import constant, read_model, set_constant
from convert.tflite.writer import serialize
from training.network import Network, UNet, fold_batch_norms

RELU, NONE = schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.NONE
Floats = NDArray[np.float32]
Codes = schema.BuiltinOperator


class FloatFile:
    """A graph under construction; methods take and return the numbers of tensors."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.model, self.main = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.main]
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.main.tensors, self.main.operators = [], []
        self.input = self._tensor((1, *shape), b"slice")

    @classmethod
    def of(cls, model: Any) -> "FloatFile":
        """An existing model, to add ops to."""
        made = cls.__new__(cls)
        made.model, made.main = model, model.subgraphs[0]
        made.main.operators = list(made.main.operators)
        return made

    def conv(self, x: int, weights: Any, bias: Any, *, relu: bool = True) -> int:
        """`weights` (outputs, rows, columns, inputs), padded to the same size."""
        w = np.asarray(weights, np.float32)
        options = schema.Conv2DOptionsT()
        options.padding, options.strideW, options.strideH = 0, 1, 1
        options.dilationWFactor = options.dilationHFactor = 1
        options.fusedActivationFunction = RELU if relu else NONE
        constants = [self._constant(w), self._constant(np.asarray(bias, np.float32))]
        shape = (*self._shape(x)[:3], w.shape[0])
        return self._op(Codes.CONV_2D, 1, options, [x, *constants], shape)

    def pool(self, x: int) -> int:
        options = schema.Pool2DOptionsT()
        options.padding = options.fusedActivationFunction = 0
        options.strideW = options.strideH = options.filterWidth = options.filterHeight = 2
        b, h, w, c = self._shape(x)
        return self._op(Codes.MAX_POOL_2D, 5, options, [x], (b, h // 2, w // 2, c))

    def up(self, x: int) -> int:
        b, h, w, c = self._shape(x)
        options = schema.ResizeNearestNeighborOptionsT()
        size = self._constant(np.array([2 * h, 2 * w], np.int32))
        code = Codes.RESIZE_NEAREST_NEIGHBOR
        return self._op(code, 74, options, [x, size], (b, 2 * h, 2 * w, c))

    def add(self, a: int, b: int) -> int:
        options = schema.AddOptionsT()
        options.fusedActivationFunction = NONE
        return self._op(Codes.ADD, 11, options, [a, b], self._shape(a))

    def concat(self, a: int, b: int) -> int:
        options = schema.ConcatenationOptionsT()
        options.axis, options.fusedActivationFunction = 3, NONE
        *rest, c = self._shape(a)
        return self._op(Codes.CONCATENATION, 10, options, [a, b], (*rest, c + self._shape(b)[-1]))

    def prelu(self, x: int, slopes: Any) -> int:
        w = np.asarray(slopes, np.float32).reshape(1, 1, -1)
        return self._op(Codes.PRELU, 0, None, [x, self._constant(w)], self._shape(x))

    def unary(self, x: int, name: str) -> int:
        """An op of one input and no options, by the schema's name."""
        return self._op(getattr(Codes, name), 0, None, [x], self._shape(x))

    def file(self, output: int) -> bytes:
        self.main.inputs, self.main.outputs = (
            np.array([self.input], np.int32),
            np.array([output], np.int32),
        )
        self.main.tensors[output].name = b"logits"
        return serialize(self.model)

    def _shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(n) for n in self.main.tensors[index].shape)

    def _tensor(self, shape: Sequence[int], name: bytes = b"", kind: int = 0) -> int:
        made = schema.TensorT()
        made.shape, made.type, made.name = np.array(shape, np.int32), kind, name
        made.buffer = 0
        self.main.tensors.append(made)
        return len(self.main.tensors) - 1

    def _constant(self, values: NDArray[Any]) -> int:
        kind = schema.TensorType.INT32 if values.dtype == np.int32 else schema.TensorType.FLOAT32
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        index = self._tensor(values.shape, kind=kind)
        self.main.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def _op(
        self, code: int, kind: int, options: Any, inputs: list[int], shape: Sequence[int]
    ) -> int:
        known, operator = schema.OperatorCodeT(), schema.OperatorT()
        known.builtinCode = known.deprecatedBuiltinCode = code
        known.version = 1
        self.model.operatorCodes.append(known)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        made = self._tensor(shape)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([made], np.int32)
        self.main.operators.append(operator)
        return made


def of_unet(network: Network, window: tuple[int, int]) -> bytes:
    """The float file of a UNet, its norms folded by now or before, as onnx2tf would write it."""
    if any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()):
        network = fold_batch_norms(network)
    assert isinstance(network, UNet)
    made = FloatFile((*window, network.config.inputs))

    def conv(x: int, module: torch.nn.Module, *, relu: bool = True) -> int:
        assert isinstance(module, torch.nn.Conv2d) and module.bias is not None
        weights = module.weight.detach().permute(0, 2, 3, 1).numpy()
        return made.conv(x, weights, module.bias.detach().numpy(), relu=relu)

    def block(x: int, module: torch.nn.Module) -> int:
        assert isinstance(module, torch.nn.Sequential)
        return conv(x, module[0])

    x, skips = made.input, list[int]()
    for level in network.encoder:
        x = made.pool(x) if skips else x
        for part in level.children():
            x = block(x, part)
        skips.append(x)
    for lift, decode, skip in zip(network.lift, network.decoder, skips[-2::-1], strict=True):
        x = block(made.add(made.up(block(x, lift)), skip), decode)
    return made.file(conv(x, network.head, relu=False))


def scale_weights(content: bytes, layer: int, factor: float) -> bytes:
    """The file with the weights of its n-th convolution multiplied by a factor."""
    model = read_model(content)
    main = model.subgraphs[0]
    convolutions = [o for o in main.operators if len(o.inputs) == 3]
    weights = main.tensors[convolutions[layer].inputs[1]]
    values = constant(model, weights)
    assert values is not None
    set_constant(model, weights, values * factor)
    return serialize(model)
