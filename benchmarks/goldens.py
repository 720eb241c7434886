"""Write what a model's int8 file makes of golden slices, to hold any machine against it.

    python benchmarks/goldens.py models/compact

`models/golden-slices.npz` holds slices of the phantom as every int8 network of the kit takes them;
it is made once, because another processor's exponential may differ in the last bit. `goldens.json`
of the model folder holds the file's SHA-256 and, for each runtime it was run on, that of the labels
found. A golden belongs to a file and a runtime: other kernels round otherwise.
Float files have none: their sums depend on the processor.
"""

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.runs import ROOT
from device.engine import Engine
from device.segment import slices_of
from glioslice import command
from glioslice.cases import phantom_case
from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256, whole, write_json
from glioslice.labels import to_labels

GOLDENS = "goldens.json"
SLICES = ROOT / "models" / "golden-slices.npz"
PHANTOM, EVERY = 0, 24


def main() -> None:
    """Read the command line and write them."""
    parser = command.parser(
        "Write the golden masks of a model folder.", "python benchmarks/goldens.py models/compact"
    )
    parser.add_argument("folder", type=Path, metavar="MODEL", help="a model folder")
    command.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Write the folder's goldens; those of the same file on other runtimes stay."""
    [file] = arguments.folder.glob("*-int8.tflite")
    path, engine = arguments.folder / GOLDENS, Engine(file)
    made = {"file": file.name, "sha256": sha256(file), "labels": {engine.runtime: found(engine)}}
    if path.is_file() and (old := read_json(path))["sha256"] == made["sha256"]:
        made["labels"] = old["labels"] | made["labels"]
    write_json(path, made)
    print(f"{path} is written")


def found(engine: Engine) -> str:
    """Return the SHA-256 of the labels (N, X, Y) that the engine finds in the golden slices."""
    labels = np.stack([to_labels(engine.invoke(one)) for one in golden_slices(engine)])
    return hashlib.sha256(labels.tobytes()).hexdigest()


def golden_slices(engine: Engine) -> NDArray[np.int8]:
    """Return the golden slices (N, X, Y, 4), made of the phantom if the file is missing.

    Raises GliosliceError if the network takes its input in other steps.
    """
    if not SLICES.is_file():
        slices, _ = slices_of(phantom_case(PHANTOM).images, engine.card)
        prepared: Any = [engine.prepare(one) for one in slices[EVERY // 2 :: EVERY]]
        with whole(SLICES) as temporary:
            np.savez_compressed(
                temporary, slices=np.stack(prepared), scale=engine.input.scale,
                zero_point=engine.input.zero_point,
            )  # fmt: skip
    with np.load(SLICES) as held:
        steps = float(held["scale"]), int(held["zero_point"])
        if steps != (engine.input.scale, engine.input.zero_point):
            raise GliosliceError(f"{SLICES.name}: its steps {steps} are not those of the network")
        golden: NDArray[np.int8] = held["slices"]
    return golden


if __name__ == "__main__":
    main()
