"""MobileNetV2 1.0 224 with random weights: the network in every board's published tables.

    python benchmarks/mobilenet_baseline.py build/mobilenetv2-int8.tflite

The time of an int8 network does not depend on its weights, so none are downloaded: they are drawn
from a seed. The network is converted as ours are, from ONNX to a packed int8 file. Batch norms are
folded, as in any file for a board, and padding is TensorFlow's SAME, which needs no ops of its own.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from convert.export import INPUT, OUTPUT, convert_onnx
from convert.pack import pack
from convert.quantization import calibrate, quantize_file
from glioslice import cli
from glioslice.files import write_bytes

NAME = "MobileNetV2 1.0 224"
SIDE, CLASSES, SEED, SAMPLES = 224, 1000, 0, 4
OPSET, IR = 17, 8

FIRST, LAST = 32, 1280
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, repetitions, stride of the first: table 2 of Sandler et al., CVPR 2018."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and write the int8 file."""
    parser = cli.parser(
        f"Write {NAME} with random weights as an int8 file.",
        "python benchmarks/mobilenet_baseline.py build/mobilenetv2-int8.tflite",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the .tflite file to write")
    cli.run(write_network, parser.parse_args(argv))


def write_network(arguments: argparse.Namespace) -> None:
    """Write the file and print its size."""
    content = int8_file()
    write_bytes(arguments.file, content)
    print(f"{arguments.file}: {NAME} in int8, {len(content):,} bytes")


@cache
def int8_file() -> bytes:
    """Return the network as a packed int8 file: (1, 224, 224, 3) in, (1, 1000) out."""
    fp32 = convert_onnx(onnx_file(), samples())["fp32"]
    return pack(quantize_file(calibrate(fp32, samples())))


def samples() -> NDArray[np.float32]:
    """Return random pictures (SAMPLES, 224, 224, 3) from -1 to 1."""
    drawn = np.random.default_rng(SEED).uniform(-1, 1, (SAMPLES, SIDE, SIDE, 3))
    return drawn.astype(np.float32)


@cache
def onnx_file() -> bytes:
    """Return the float network as ONNX: (1, 3, 224, 224) in, (1, 1000) out."""
    graph = _Graph()
    x, width = graph.convolution(INPUT, 3, FIRST, 3, stride=2), FIRST
    for expansion, channels, repetitions, stride in BLOCKS:
        for index in range(repetitions):
            x = graph.block(x, width, channels, expansion, 1 if index else stride)
            width = channels
    x = graph.convolution(x, width, LAST, 1)
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.add("Gemm", x, *graph.weights((LAST, CLASSES), LAST), name=OUTPUT)
    return graph.to_bytes()


class _Graph:
    """An ONNX graph under construction: methods add nodes and return the name of their output."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(SEED)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def block(self, x: str, inputs: int, outputs: int, expansion: int, stride: int) -> str:
        """Add an inverted residual block: expand, filter each channel, project."""
        width = inputs * expansion
        y = self.convolution(x, inputs, width, 1) if expansion > 1 else x
        y = self.convolution(y, width, width, 3, stride=stride, groups=width)
        y = self.convolution(y, width, outputs, 1, bounded=False)
        return self.add("Add", x, y) if stride == 1 and inputs == outputs else y

    def convolution(
        self, x: str, inputs: int, outputs: int, kernel: int,
        *, stride: int = 1, groups: int = 1, bounded: bool = True,
    ) -> str:  # fmt: skip
        """Add a convolution with bias, followed by ReLU6 if `bounded`."""
        fan_in = inputs // groups * kernel**2
        weights = self.weights((outputs, inputs // groups, kernel, kernel), fan_in)
        y = self.add(
            "Conv", x, *weights,
            auto_pad="SAME_UPPER", kernel_shape=[kernel] * 2, strides=[stride] * 2, group=groups,
        )  # fmt: skip
        if not bounded:
            return y
        return self.add("Clip", y, self._constant(np.float32(0)), self._constant(np.float32(6)))

    def weights(self, shape: tuple[int, ...], fan_in: int) -> tuple[str, str]:
        """Add weights of variance 2 / fan_in (He et al., ICCV 2015), and small biases."""
        width = shape[0] if len(shape) > 2 else shape[1]
        drawn = self._rng.normal(0, np.sqrt(2 / fan_in), shape), self._rng.normal(0, 0.1, width)
        return self._constant(drawn[0]), self._constant(drawn[1])

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node."""
        name = name or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def to_bytes(self) -> bytes:
        """Return the graph as the bytes of a model."""
        shapes: Mapping[str, list[int]] = {INPUT: [1, 3, SIDE, SIDE], OUTPUT: [1, CLASSES]}
        given, made = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        )
        graph = helper.make_graph(self._nodes, "mobilenetv2", [given], [made], self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR)
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString()
        return content

    def _constant(self, values: NDArray[np.float64] | np.float32) -> str:
        name = f"constant_{len(self._constants)}"
        array = np.asarray(values, np.float32)
        self._constants.append(numpy_helper.from_array(array, name))
        return name


if __name__ == "__main__":
    main()
