"""Shrink a TFLite file without changing what it computes.

    python convert/pack.py FILE [OUT]                     # default: FILE-packed.tflite

Equal tables, vectors and constants are stored once (`convert.tflite.writer`). Dropped are
descriptions, metadata that no runtime reads and files appended to it, the names of subgraphs and of
tensors inside the network, the calibration's minimum and maximum beside a scale, and shape
signatures that equal the shape. Everything else is kept, also signatures and unknown metadata.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convert.tflite.reader import IDENTIFIER, list_of, read_model
from convert.tflite.writer import DeduplicatingBuilder, Ref, build_flatbuffer
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes

DESCRIPTIVE_METADATA = frozenset(
    {b"min_runtime_version", b"CONVERSION_METADATA", b"TFLITE_METADATA"}
)
"""Metadata that no runtime reads. Other metadata may control kernels or the memory plan."""

VALIDATION = b"VALIDATION:"
"""LiteRT skips subgraphs whose names begin like this, so these names are kept."""


def pack(content: bytes) -> bytes:
    """Return a TFLite file that computes bit for bit what `content` does, in fewer bytes.

    The result is read again to check that nothing was lost. Packing twice changes nothing. Raises
    GliosliceError as `read_model` does.
    """
    model = read_model(content)
    _drop_descriptions(model)
    _drop_ranges(model)
    _share_buffers(model)
    builder, root = _record(model)
    packed = build_flatbuffer(builder.nodes, root, IDENTIFIER)
    if _record(read_model(packed))[0].nodes != builder.nodes:
        raise AssertionError("the packed file differs from the model that it was made of")
    return packed


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and pack."""
    parser = cli.parser(
        "Shrink a TFLite file without changing what it computes.",
        "glioslice pack network.tflite network-packed.tflite",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a TFLite file")
    parser.add_argument(
        "out", nargs="?", type=Path, metavar="OUT",
        help="default: FILE-packed.tflite; may be FILE itself",
    )  # fmt: skip
    cli.run(pack_command, parser.parse_args(argv))


def pack_command(arguments: argparse.Namespace) -> None:
    """Pack one file; nothing is written if it cannot be packed."""
    source: Path = arguments.file
    out = arguments.out or source.with_name(f"{source.stem}-packed{source.suffix}")
    content = source.read_bytes()
    try:
        packed = pack(content)
    except GliosliceError as error:
        raise GliosliceError(f"{source}: {error}") from None
    write_bytes(out, packed)
    print(f"{source}: {len(content):,} bytes")
    saved = 1 - len(packed) / len(content)
    print(f"{out}: {len(packed):,} bytes, {saved:.1%} less")


def _record(model: Any) -> tuple[DeduplicatingBuilder, Ref]:
    builder = DeduplicatingBuilder()
    return builder, model.Pack(builder)


def _drop_descriptions(model: Any) -> None:
    model.description = None
    model.metadata = [
        m for m in list_of(model.metadata) if m.name not in DESCRIPTIVE_METADATA
    ] or None
    model.metadataBuffer = None
    for graph in model.subgraphs:
        if not (graph.name or b"").startswith(VALIDATION):
            graph.name = None
        for part in (graph, *list_of(graph.operators)):
            part.debugMetadataIndex = -1  # it points into dropped metadata
        named = {*list_of(graph.inputs), *list_of(graph.outputs)}
        for index, tensor in enumerate(graph.tensors):
            tensor.name = tensor.name if index in named else b""


def _drop_ranges(model: Any) -> None:
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        quantization = tensor.quantization
        if quantization is not None:
            if quantization.scale is not None:
                quantization.min = quantization.max = None
            if all(not _is_set(value) for value in vars(quantization).values()):
                tensor.quantization = None
        if list_of(tensor.shapeSignature) == list_of(tensor.shape):
            tensor.shapeSignature = None


def _is_set(value: Any) -> bool:
    return value is not None and not (isinstance(value, int) and value == 0)


def _share_buffers(model: Any) -> None:
    """Keep one buffer of each content, in the order of first use; buffer 0 remains empty."""
    kept, positions = [model.buffers[0]], {None: 0}
    users = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    for user in [*users, *list_of(model.metadata)]:
        data = model.buffers[user.buffer].data
        key = None if data is None else data.tobytes()
        if key not in positions:
            positions[key] = len(kept)
            kept.append(model.buffers[user.buffer])
        user.buffer = positions[key]
    model.buffers = kept


if __name__ == "__main__":
    main()
