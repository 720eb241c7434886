"""Shrink a TFLite file without changing what it computes.

    python convert/pack.py IN.tflite [OUT.tflite]         # default: IN-packed.tflite

Shared: equal tables, vectors and constants (`convert.tflite.deduplication`). Dropped: descriptions, metadata
that only describes and files packed behind it, the names of subgraphs and of tensors inside the
network, the minimum and maximum that calibration saw beside a scale, shape signatures that say no
more than the shape. All else is kept as it is, signatures and unknown metadata too.
"""

import argparse
from pathlib import Path
from typing import Any

from convert.tflite.deduplication import Recorder, Ref
from convert.tflite.layout import place
from convert.tflite.reader import IDENTIFIER, list_of, read_model
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes

__all__ = ["main", "pack", "read_model"]

DESCRIBING = frozenset({b"min_runtime_version", b"CONVERSION_METADATA", b"TFLITE_METADATA"})
"""Metadata that no runtime reads. Some others steer the kernels or the memory plan: they stay."""

VALIDATION = b"VALIDATION:"
"""LiteRT leaves subgraphs with names that begin like this out: such a name means something."""


def main() -> None:
    """Read the command line and pack."""
    parser = cli.parser(
        "Shrink a TFLite file without changing what it computes.",
        "python convert/pack.py network.tflite network-packed.tflite",
    )
    parser.add_argument("file", type=Path, metavar="IN", help="a TFLite file")
    parser.add_argument(
        "out", nargs="?", type=Path, metavar="OUT", help="default: IN-packed.tflite; may be IN"
    )
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
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


def pack(content: bytes) -> bytes:
    """Return a TFLite file that computes bit for bit what `content` does, in fewer bytes.

    What is returned was read again and found to say the same. Packing twice changes nothing.
    Raises GliosliceError as `read_model` does.
    """
    model = read_model(content)
    _drop_words(model)
    _drop_ranges(model)
    _share_buffers(model)
    recorder, root = _recorded(model)
    packed = place(recorder.nodes, root, IDENTIFIER)
    if _recorded(read_model(packed))[0].nodes != recorder.nodes:
        raise AssertionError("the packed file does not say what it was made of")
    return packed


def _recorded(model: Any) -> tuple[Recorder, Ref]:
    recorder = Recorder()
    return recorder, model.Pack(recorder)


def _drop_words(model: Any) -> None:
    model.description = None
    model.metadata = [m for m in list_of(model.metadata) if m.name not in DESCRIBING] or None
    model.metadataBuffer = None
    for graph in model.subgraphs:
        if not (graph.name or b"").startswith(VALIDATION):
            graph.name = None
        for part in (graph, *list_of(graph.operators)):
            part.debugMetadataIndex = -1  # into what only describes
        named = {*list_of(graph.inputs), *list_of(graph.outputs)}
        for index, tensor in enumerate(graph.tensors):
            tensor.name = tensor.name if index in named else b""


def _drop_ranges(model: Any) -> None:
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        quantisation = tensor.quantization
        if quantisation is not None:
            if quantisation.scale is not None:
                quantisation.min = quantisation.max = None
            if all(not _is_set(value) for value in vars(quantisation).values()):
                tensor.quantization = None
        if list_of(tensor.shapeSignature) == list_of(tensor.shape):
            tensor.shapeSignature = None


def _is_set(value: Any) -> bool:
    return value is not None and not (isinstance(value, int) and value == 0)


def _share_buffers(model: Any) -> None:
    """Keep one buffer of each content, in the order of first use; buffer 0 stays the empty one."""
    kept, places = [model.buffers[0]], {None: 0}
    users = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    for user in [*users, *list_of(model.metadata)]:
        data = model.buffers[user.buffer].data
        key = None if data is None else data.tobytes()
        if key not in places:
            places[key] = len(kept)
            kept.append(model.buffers[user.buffer])
        user.buffer = places[key]
    model.buffers = kept


if __name__ == "__main__":
    main()
