"""Read a packed int8 file into the layers that the firmware's kernels compute.

The kernels follow TFLite's reference kernels bit by bit, with shortcuts: inside the network a value
is never below its zero point, which is -128. What the shortcuts rest on is checked here, and a file
for which it does not hold is refused with the layer's name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from convert.tflite.reader import NAMES, list_of
from glioslice.errors import GliosliceError

LayerKind = Literal["input", "convolution", "pool", "resize", "add"]

LOWEST = -128
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
NONE, RELU = schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU
LANES = 4
"""Channels are stored in groups of four, so that a word holds a group."""

OPTIONS = {
    "CONV_2D": schema.Conv2DOptionsT,
    "MAX_POOL_2D": schema.Pool2DOptionsT,
    "RESIZE_BILINEAR": schema.ResizeBilinearOptionsT,
    "ADD": schema.AddOptionsT,
}

MAX_ACCUMULATOR = 1 << 30
"""The DSP kernels add up doubled products, in 32 bits."""

MAX_SHIFT = 22
"""The largest shift after which an offset with the zero point still fits in 32 bits."""

REGION_COUNT = 3
"""Logits of a pixel: WT, TC and ET."""

ADD_SHIFT = 20
"""Bits that TFLite's ADD shifts its inputs left by."""


@dataclass(frozen=True)
class Rescaling:
    """The factor multiplier / 2^31 / 2^shift; `offset` is added before the shift.

    It holds half a step, for rounding, and the zero point of the output.
    """

    multiplier: int
    offset: int
    shift: int


@dataclass(frozen=True, eq=False)
class Weights:
    """The constants of a convolution.

    `values` are (channels, column, row, input channels) of int8: the order in which the kernels
    walk through a window. `biases` contain the share of the input's zero point. `zero_point` is the
    output's. With `signed`, outputs may lie below it, so that ties are rounded away from zero.
    """

    values: NDArray[np.int8]
    biases: NDArray[np.int64]
    rescalings: tuple[Rescaling, ...]
    zero_point: int
    signed: bool

    @property
    def length(self) -> int:
        """The number of values in a window."""
        return int(np.prod(self.values.shape[1:]))


@dataclass(frozen=True, eq=False)
class FirmwareLayer:
    """A layer and its output: `channels` of the file, which are stored as `stored`.

    `sources` are the numbers of the layers that it reads; layer 0 is the input. `tensor` is the
    output's index in the file.
    """

    kind: LayerKind
    name: str
    tensor: int
    sources: tuple[int, ...]
    rows: int
    columns: int
    channels: int
    zero_point: int
    window: int = 1
    stride: int = 1
    before: int = 0
    weights: Weights | None = None
    sums: tuple[Rescaling, ...] = ()
    scale: float = field(default=0.0)

    @property
    def stored(self) -> int:
        """Channels as stored; the last ones may be padding."""
        return -(-self.channels // LANES) * LANES

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the output."""
        return self.columns * self.stored

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of the output."""
        return self.rows, self.columns, self.channels

    def rows_needed(self, row: int, source: "FirmwareLayer") -> range:
        """Return the rows of `source` that an output row is computed from."""
        if self.kind == "resize":
            return range(row // 2, min(row // 2 + row % 2, source.rows - 1) + 1)
        first = row * self.stride - self.before
        return range(max(first, 0), min(first + self.window, source.rows))


@dataclass(frozen=True)
class _Op:
    """An op of the file: its inputs and output are indices of tensors."""

    name: str
    kind: str
    inputs: tuple[int, ...]
    output: int
    options: Any


def read_layers(model: Any) -> tuple[FirmwareLayer, ...]:
    """Return the layers of a `ModelT`, the input first, each after those that it reads.

    Raises GliosliceError naming a layer that does not fit.
    """
    if len(list_of(model.subgraphs)) != 1:
        raise GliosliceError("the firmware takes files with one graph; convert it again")
    return _Reader(model).layers()


def _refuse(op: str, problem: str) -> GliosliceError:
    return GliosliceError(f"{op}: {problem}; the firmware has no kernel for it")


class _Reader:
    """Reads one model; layers are numbered in the order of the file."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.graph = model.subgraphs[0]
        self.numbers: dict[int, int] = {}
        self.found: list[FirmwareLayer] = []

    def layers(self) -> tuple[FirmwareLayer, ...]:
        if [len(list_of(ends)) for ends in (self.graph.inputs, self.graph.outputs)] != [1, 1]:
            raise GliosliceError("the firmware takes files with one input and one output")
        [start], [end] = list_of(self.graph.inputs), list_of(self.graph.outputs)
        rows, columns, channels, scale, zero = self.image("the input", start)
        if channels % LANES:
            raise _refuse("the input", f"{channels} channels, not a multiple of {LANES}")
        self.add(
            FirmwareLayer(
                "input", "the input", start, (), rows, columns, channels, zero, scale=scale
            )
        )
        pads: dict[int, tuple[_Op, int]] = {}
        for op in self.ops():
            if not isinstance(op.options, OPTIONS.get(op.kind, object)):
                raise _refuse(op.name, "an op without its options")
            if op.kind == "PAD":
                pads[op.output] = (op, self.padding(op))
                continue
            if op.kind == "CONV_2D" and op.inputs[0] in pads:
                pad, before = pads.pop(op.inputs[0])
                self.add(self.convolution(op, pad.inputs[0], before))
                continue
            readers = {
                "CONV_2D": self.convolution, "MAX_POOL_2D": self.pool,
                "RESIZE_BILINEAR": self.resize, "ADD": self.sum,
            }  # fmt: skip
            if op.kind not in readers:
                raise _refuse(op.name, "an op that is not in networks of glioslice")
            self.add(readers[op.kind](op))
        if pads:
            raise _refuse(next(iter(pads.values()))[0].name, "its output is not read by CONV_2D")
        self.check_end(end)
        return tuple(self.found)

    def check_end(self, output: int) -> None:
        """Check that the last layer gives the logits and that every other one is read."""
        last = self.found[-1]
        if last.tensor != output or last.channels != REGION_COUNT or last.kind == "input":
            raise _refuse(last.name, f"the network does not end in it with {REGION_COUNT} logits")
        unread = set(range(len(self.found) - 1)) - {i for one in self.found for i in one.sources}
        if unread:
            raise _refuse(self.found[min(unread)].name, "its output is never read")

    def add(self, layer: FirmwareLayer) -> None:
        self.numbers[layer.tensor] = len(self.found)
        self.found.append(layer)

    def ops(self) -> Iterator[_Op]:
        for index, operator in enumerate(list_of(self.graph.operators)):
            code = self.model.operatorCodes[operator.opcodeIndex]
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            kind = NAMES[number]
            outputs = list_of(operator.outputs)
            if len(outputs) != 1:
                raise _refuse(f"op {index}, {kind}", f"{len(outputs)} outputs")
            label = (self.graph.tensors[outputs[0]].name or b"").decode(errors="replace")
            name = f"op {index}, {kind}" + (f" ({label})" if label else "")
            inputs = tuple(int(i) for i in list_of(operator.inputs))
            yield _Op(name, kind, inputs, int(outputs[0]), operator.builtinOptions)

    def image(self, name: str, tensor: int) -> tuple[int, int, int, float, int]:
        """Return rows, columns, channels, scale and zero point of an int8 image."""
        given = self.graph.tensors[tensor]
        shape = [int(size) for size in list_of(given.shape)]
        if given.type != schema.TensorType.INT8 or len(shape) != 4 or shape[0] != 1:
            raise _refuse(name, f"a tensor {shape} that is not one int8 image")
        if min(shape) < 1 or max(shape) > 1024:
            raise _refuse(name, f"an image of {shape[1:]}")
        scales, points = self.quantization(tensor)
        if len(scales) != 1 or len(points) != 1 or not 0 < scales[0] < np.inf:
            raise _refuse(name, "an image without a single scale and zero point")
        return shape[1], shape[2], shape[3], float(scales[0]), int(points[0])

    def quantization(self, tensor: int) -> tuple[list[Any], list[Any]]:
        found = self.graph.tensors[tensor].quantization
        return ([], []) if found is None else (list_of(found.scale), list_of(found.zeroPoint))

    def constant(self, op: _Op, number: int, dtype: type[np.int8 | np.int32]) -> NDArray[Any]:
        kinds = {np.int8: schema.TensorType.INT8, np.int32: schema.TensorType.INT32}
        if number >= len(op.inputs) or op.inputs[number] < 0:
            raise _refuse(op.name, f"input {number} is missing")
        tensor = self.graph.tensors[op.inputs[number]]
        data = self.model.buffers[tensor.buffer].data
        shape = [int(size) for size in list_of(tensor.shape)]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if tensor.type != kinds[dtype] or data is None or data.nbytes != size:
            raise _refuse(op.name, f"input {number} is not a constant of {np.dtype(dtype)}")
        return np.frombuffer(data.tobytes(), dtype).reshape(shape)

    def source(self, op: _Op, tensor: int) -> FirmwareLayer:
        if tensor not in self.numbers:
            raise _refuse(op.name, "it reads a tensor that no layer before it computes")
        return self.found[self.numbers[tensor]]

    def output(self, op: _Op, expected: tuple[int, int, int]) -> tuple[float, int]:
        """Return scale and zero point of the output, which must have the expected shape."""
        *shape, scale, zero = self.image(op.name, op.output)
        if tuple(shape) != expected:
            raise _refuse(op.name, f"an output of {shape}, not {list(expected)}")
        return scale, zero

    def same_scale(self, op: _Op, source: FirmwareLayer, expected: tuple[int, int, int]) -> float:
        scale, zero = self.output(op, expected)
        if (scale, zero) != (source.scale, source.zero_point):
            raise _refuse(op.name, "another scale or zero point than its input's")
        return scale

    def padding(self, op: _Op) -> int:
        """Return the padding before rows and columns of a PAD, whose only reader is a CONV_2D."""
        widths = self.constant(op, 1, np.int32).tolist()
        if widths != [[0, 0], [1, 1], [1, 1], [0, 0]]:
            raise _refuse(op.name, f"padding of {widths}, not by one pixel on each side")
        source = self.source(op, op.inputs[0])
        self.same_scale(op, source, (source.rows + 2, source.columns + 2, source.channels))
        return 1

    def convolution(self, op: _Op, tensor: int | None = None, padded: int = 0) -> FirmwareLayer:
        """Return a CONV_2D; behind a PAD, `tensor` is what the PAD reads."""
        options = op.options
        source = self.source(op, op.inputs[0] if tensor is None else tensor)
        filters, biases = self.constant(op, 1, np.int8), self.constant(op, 2, np.int32)
        window, stride = filters.shape[1] if filters.ndim == 4 else 0, options.strideH
        if filters.ndim != 4 or filters.shape[1:] != (window, window, source.channels):
            raise _refuse(op.name, f"filters of {filters.shape} for {source.channels} channels")
        dilations = options.dilationHFactor, options.dilationWFactor
        if (window, stride) not in ((1, 1), (3, 1), (3, 2)) or options.strideW != stride:
            raise _refuse(op.name, f"a window of {window} with a stride of {stride}")
        if dilations != (1, 1) or options.padding not in (SAME, VALID):
            raise _refuse(op.name, "a dilation, or padding that is neither SAME nor VALID")
        if padded and options.padding == SAME:
            raise _refuse(op.name, "padding by a PAD and by itself")
        sizes = (source.rows + 2 * padded, source.columns + 2 * padded)
        if options.padding == SAME:
            rows, columns = (-(-size // stride) for size in sizes)
            befores = {
                max((out - 1) * stride + window - size, 0) // 2
                for out, size in zip((rows, columns), sizes, strict=True)
            }
        else:
            rows, columns = ((size - window) // stride + 1 for size in sizes)
            befores = {padded}
        if len(befores) != 1 or min(rows, columns) < 1 or columns % 2:
            raise _refuse(op.name, f"an output of {rows} x {columns}; columns must be even")
        scale, zero = self.output(op, (rows, columns, filters.shape[0]))
        weights = self.weights(op, source, filters, biases, (scale, zero))
        return FirmwareLayer(
            "convolution", op.name, op.output, (self.numbers[source.tensor],), rows, columns,
            filters.shape[0], zero, window, stride, befores.pop(), weights, scale=scale,
        )  # fmt: skip

    def weights(
        self,
        op: _Op,
        source: FirmwareLayer,
        filters: NDArray[np.int8],
        biases: NDArray[np.int32],
        output: tuple[float, int],
    ) -> Weights:
        scale, zero = output
        count = filters.shape[0]
        scales, points = self.quantization(op.inputs[1])
        if biases.shape != (count,) or len(scales) not in (1, count) or any(points):
            raise _refuse(op.name, "filters or biases of the wrong size or with a zero point")
        activation = op.options.fusedActivationFunction
        if not (activation == NONE or (activation == RELU and zero == LOWEST)):
            raise _refuse(
                op.name,
                f"activation {activation} with zero point {zero}; expected none, or RELU with "
                f"{LOWEST}",
            )
        centred = biases - source.zero_point * filters.astype(np.int64).sum(axis=(1, 2, 3))
        largest = abs(centred) + 128 * abs(filters.astype(np.int64)).sum(axis=(1, 2, 3))
        if largest.max() >= MAX_ACCUMULATOR:
            raise _refuse(op.name, f"sums of up to {largest.max():,}, more than 30 bits")
        factors = source.scale * np.resize(np.array(scales, np.float64), count) / scale
        signed = activation == NONE
        rescalings = tuple(_rescaling(op.name, float(factor), zero, signed) for factor in factors)
        return Weights(filters.transpose(0, 2, 1, 3), centred, rescalings, zero, signed)

    def pool(self, op: _Op) -> FirmwareLayer:
        options, source = op.options, self.source(op, op.inputs[0])
        sizes = (options.filterHeight, options.filterWidth, options.strideH, options.strideW)
        if sizes != (2, 2, 2, 2) or options.fusedActivationFunction != NONE:
            raise _refuse(op.name, f"window and stride {sizes}, or an activation")
        if source.rows % 2 or source.columns % 2:
            raise _refuse(op.name, f"an input of {source.rows} x {source.columns}, which is odd")
        shape = (source.rows // 2, source.columns // 2, source.channels)
        scale = self.same_scale(op, source, shape)
        return FirmwareLayer(
            "pool", op.name, op.output, (self.numbers[source.tensor],), *shape,
            source.zero_point, window=2, stride=2, scale=scale,
        )  # fmt: skip

    def resize(self, op: _Op) -> FirmwareLayer:
        options, source = op.options, self.source(op, op.inputs[0])
        if options.alignCorners or options.halfPixelCenters:
            raise _refuse(op.name, "aligned corners or half-pixel centres")
        shape = (2 * source.rows, 2 * source.columns, source.channels)
        if self.constant(op, 1, np.int32).tolist() != list(shape[:2]):
            raise _refuse(op.name, "a resize that does not double rows and columns")
        scale = self.same_scale(op, source, shape)
        return FirmwareLayer(
            "resize", op.name, op.output, (self.numbers[source.tensor],), *shape,
            source.zero_point, scale=scale,
        )  # fmt: skip

    def sum(self, op: _Op) -> FirmwareLayer:
        sources = [self.source(op, tensor) for tensor in op.inputs]
        if len(sources) != 2 or sources[0].shape != sources[1].shape:
            raise _refuse(op.name, "inputs of different shapes")
        scale, zero = self.output(op, sources[0].shape)
        zeros = [source.zero_point for source in sources] + [zero]
        if zeros != [LOWEST] * 3 or op.options.fusedActivationFunction not in (NONE, RELU):
            raise _refuse(op.name, f"zero points {zeros} or an activation; expected {LOWEST}")
        twice = 2 * max(source.scale for source in sources)
        sums = [_rescaling(op.name, source.scale / twice, 0, False) for source in sources]
        sums.append(_rescaling(op.name, twice / (2**ADD_SHIFT * scale), zero, False))
        return FirmwareLayer(
            "add", op.name, op.output, tuple(self.numbers[s.tensor] for s in sources),
            *sources[0].shape, zero, sums=tuple(sums), scale=scale,
        )  # fmt: skip


def _rescaling(name: str, factor: float, zero: int, signed: bool) -> Rescaling:
    """Return the factor as TFLite's QuantizeMultiplier does (quantization_util.cc)."""
    if not 0 < factor < 1:
        raise _refuse(name, f"a rescaling by {factor:g}, which is not between 0 and 1")
    fraction, exponent = np.frexp(factor)
    multiplier, exponent = int(np.floor(float(fraction) * 2**31 + 0.5)), int(exponent)
    if multiplier == 1 << 31:
        multiplier, exponent = 1 << 30, exponent + 1
    shift = -exponent
    if not (1 if signed else 0) <= shift <= MAX_SHIFT:
        raise _refuse(name, f"a rescaling by {factor:g}, which needs a shift of {shift}")
    half = 1 << shift - 1 if shift else 0
    return Rescaling(multiplier, half + (zero << shift), shift)


def describe(layers: Sequence[FirmwareLayer]) -> str:
    """Return how many layers of each kind there are, such as 19 convolution, 4 pool."""
    kinds = [layer.kind for layer in layers]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
