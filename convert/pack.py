"""Shrink a TFLite file without changing what it computes.

Shared: equal tables, vectors and constants (`convert.sharing`). Dropped: metadata, descriptions,
the names of subgraphs and of tensors inside the network, the minimum and maximum that calibration
saw beside a scale, shape signatures that say no more than the shape. All else is kept as it is.
"""

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from convert.placement import place
from convert.sharing import Recorder
from glioslice.errors import GliosliceError

IDENTIFIER = b"TFL3"


class _Strict(bytes):
    """Bytes that refuse a slice reaching past their end, where `bytes` would return less."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) and key.stop is not None and key.stop > len(self):
            raise IndexError(f"a string ends {key.stop - len(self)} bytes behind the file")
        return super().__getitem__(key)


def read_model(content: bytes) -> Any:
    """Return the `ModelT` of a TFLite file.

    Raises GliosliceError if it is no TFLite file, is damaged, or keeps constants outside the
    flatbuffer.
    """
    if content[4:8] != IDENTIFIER:
        raise GliosliceError("this is no TFLite file: it does not bear the mark TFL3")
    try:
        model = schema.ModelT.InitFromPackedBuf(_Strict(content), 0)
        _check(model)
    except GliosliceError:
        raise
    except Exception as error:  # generated code raises whatever the damage leads it to
        raise GliosliceError(f"this TFLite file is damaged ({error}); convert it again") from None
    return model


def _check(model: Any) -> None:
    """Check that every index points at something."""
    if any(buffer.offset > 1 for buffer in model.buffers):
        raise GliosliceError("this TFLite file keeps constants behind its flatbuffer: too large")
    if model.buffers[0].data is not None and len(model.buffers[0].data):
        raise ValueError("buffer 0 is not empty")
    for graph in model.subgraphs:
        tensors = range(len(graph.tensors))
        for tensor in graph.tensors:
            if tensor.buffer not in range(len(model.buffers)):
                raise ValueError(f"a tensor's buffer is {tensor.buffer}")
        if any(index not in tensors for index in [*graph.inputs, *graph.outputs]):
            raise ValueError("an input or output is no tensor")
        for operator in graph.operators:
            if operator.opcodeIndex not in range(len(model.operatorCodes)):
                raise ValueError(f"an op's code is {operator.opcodeIndex}")
            used = [*_list(operator.inputs), *_list(operator.outputs)]
            if any(index != -1 and index not in tensors for index in used):
                raise ValueError("an op's input or output is no tensor")


def _list(vector: Any) -> list[Any]:
    return [] if vector is None else list(vector)


def _drop_words(model: Any) -> None:
    model.description = None
    model.metadata = None
    model.metadataBuffer = None
    for graph in model.subgraphs:
        graph.name = None
        for part in (graph, *graph.operators):
            part.debugMetadataIndex = -1  # into the metadata that is gone
        named = {*graph.inputs, *graph.outputs}
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
        if _list(tensor.shapeSignature) == _list(tensor.shape):
            tensor.shapeSignature = None


def _is_set(value: Any) -> bool:
    return value is not None and not (isinstance(value, int) and value == 0)


def _share_buffers(model: Any) -> None:
    """Keep one buffer of each content, in the order of first use; buffer 0 stays the empty one."""
    kept, places = [model.buffers[0]], {None: 0}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        data = model.buffers[tensor.buffer].data
        key = None if data is None else data.tobytes()
        if key not in places:
            places[key] = len(kept)
            kept.append(model.buffers[tensor.buffer])
        tensor.buffer = places[key]
    model.buffers = kept


def pack(content: bytes) -> bytes:
    """Return a TFLite file that computes bit for bit what `content` does, in fewer bytes.

    Packing twice changes nothing. Raises GliosliceError as `read_model` does.
    """
    model = read_model(content)
    _drop_words(model)
    _drop_ranges(model)
    _share_buffers(model)
    recorder = Recorder()
    root = model.Pack(recorder)
    return place(recorder.nodes, root, IDENTIFIER)
