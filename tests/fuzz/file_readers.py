"""The readers of files that the fuzzer feeds, each with what it starts from.

Each raises nothing but GliosliceError, whatever a file holds, and keeps its own promises. They read
files of one temporary folder, under the names that such files have.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from glioslice.errors import GliosliceError


@cache
def folder() -> Path:
    """Return the temporary folder of this process; whoever sets TMPDIR removes it."""
    return Path(tempfile.mkdtemp(prefix="glioslice-fuzz-"))


@dataclass(frozen=True)
class FileReader:
    """A reader: the modules that atheris instruments, a function, and first inputs.

    Of files that are JSON the values are changed rather than the bytes.
    """

    instrumented: tuple[str, ...]
    read: Callable[[bytes], None]
    first_inputs: Callable[[], list[bytes]]
    json: bool = False


def read_nifti(data: bytes) -> None:
    """Read an image; the first byte selects .nii or .nii.gz. Voxels are finite numbers."""
    from glioslice.nifti import read_nifti

    path = folder() / ("image.nii.gz" if data[:1] > b"\x7f" else "image.nii")
    path.write_bytes(data[1:])
    voxels, space = read_nifti(path)
    small = voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 2
    assert voxels.ndim == 4 and (small or voxels.dtype == np.float32)
    assert np.isfinite(voxels).all() and np.isfinite(space.affine).all()


def nifti_inputs() -> list[bytes]:
    """Return small images: of two types, one of them compressed."""
    import gzip

    import nibabel as nib

    inputs = []
    for dtype in (np.int16, np.float32):
        voxels = np.arange(24).reshape(2, 3, 4).astype(dtype)
        content = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])).to_bytes()
        inputs += [b"\0" + content, b"\xff" + gzip.compress(content)]
    return inputs


def read_card(data: bytes) -> None:
    """Read a model's card; one that is accepted has a window and digests."""
    from glioslice.model_card import read_card

    (folder() / "card.json").write_bytes(data)
    card = read_card(folder())
    assert len(card.window) == 2 and isinstance(card.trained_on, frozenset)


def card_inputs() -> list[bytes]:
    """Return a shipped card, with two of its cases."""
    from glioslice.files import read_json
    from glioslice.model_card import CARD, shipped_folder

    content = read_json(shipped_folder("compact") / CARD)
    content["training"]["cases"] = content["training"]["cases"][:2]
    content["held_out"]["cases"] = []
    return [json.dumps({key: content[key] for key in keys}).encode() for keys in (
        list(content), ["name", "input", "output", "training"]
    )]  # fmt: skip


def read_tflite(data: bytes) -> None:
    """Read a TFLite file; the ops of one that is accepted can be listed."""
    from convert.tflite.reader import ops_of, read_model

    ops_of(read_model(data))


def tflite_inputs() -> list[bytes]:
    """Return small networks."""
    from tests.convert.targets.graphs import GraphBuilder

    convolution, activation = GraphBuilder(1, 4, 4, 2), GraphBuilder(1, 4, 4, 2)
    convolution.conv(0, 2, 2, 2)
    activation.op("RELU", [0], 1, 4, 4, 2)
    return [convolution.content, activation.content]


def read_recording(data: bytes) -> None:
    """Read the recording of a session; what is accepted can be replayed."""
    from glioslice.wire.replay import read_script

    path = folder() / "session.rec"
    path.write_bytes(data)
    assert read_script(path).sessions


def recording_inputs() -> list[bytes]:
    """Return a recording of frames and one of a volume, as the recorder writes them."""
    from glioslice.wire.capture import MAGIC, VERSION, Kind, pack_record
    from tools.wire_vectors import vectors

    published = vectors()
    frames = [bytes.fromhex(packet["frame"]) for packet in published["packets"]]
    volumes = [bytes.fromhex(m["bytes"]) for m in published["messages"]]
    inputs = []
    for kind, parts in ((Kind.UP, frames), (Kind.DOWN, frames), (Kind.VOLUME, volumes[:3])):
        records = [pack_record(kind, 0.1 * i, part) for i, part in enumerate(parts[:8])]
        end = pack_record(Kind.END, 1.0, b"")
        inputs.append(MAGIC + bytes([VERSION]) + b"".join(records) + end)
    return inputs


def read_dataset(data: bytes) -> None:
    """Find the case of a Decathlon folder whose dataset.json holds `data`."""
    from glioslice.cases import find_case

    image = folder() / "imagesTr" / "BRATS_001.nii.gz"
    if not image.is_file():
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(b"")
    (folder() / "dataset.json").write_bytes(data)
    assert find_case(image).images


def dataset_inputs() -> list[bytes]:
    """Return descriptions as the Decathlon and nnU-Net write them."""
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    labels = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    swapped = {"background": 0, "edema": 1, "core": [2, 3]}
    return [
        json.dumps(content).encode()
        for content in (
            {"modality": modality, "labels": labels, "numTraining": 484},
            {"modality": list(modality.values()), "labels": labels},
            {"channel_names": modality, "labels": swapped, "file_ending": ".nii.gz"},
        )
    ]


READERS = {
    "nifti": FileReader(("glioslice.nifti", "nibabel"), read_nifti, nifti_inputs),
    "card": FileReader(("glioslice.model_card", "glioslice.files"), read_card, card_inputs, True),
    "tflite": FileReader(
        ("convert.tflite", "ai_edge_litert.schema_py_generated"), read_tflite, tflite_inputs
    ),
    "recording": FileReader(("glioslice.wire",), read_recording, recording_inputs),
    "dataset": FileReader(
        ("glioslice.cases", "glioslice.dataset_layouts", "glioslice.files"),
        read_dataset,
        dataset_inputs,
        json=True,
    ),
}


def read_input(name: str, data: bytes) -> None:
    """Give an input to a reader."""
    with contextlib.suppress(GliosliceError):
        READERS[name].read(data)
