"""Write what a model's int8 file makes of golden slices, to hold any machine against it.

    python tools/goldens.py models/compact

`device/goldens.py` says what the files hold. The slices are made once, because another processor's
exponential may differ in the last bit. `python -m device selftest` holds a board against them.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.folds import ROOT
from device import goldens
from device.engine import BUILT_IN, Engine
from device.goldens import GOLDENS, Goldens, found, golden_slices, source_of, write_goldens
from device.segment import slices_of
from glioslice import cli
from glioslice.cases import phantom_case
from glioslice.errors import GliosliceError
from glioslice.files import sha256, whole

SLICES = ROOT / "models" / goldens.SLICES
PHANTOM, EVERY = 0, 24


def main() -> None:
    """Read the command line and write them."""
    parser = cli.parser(
        "Write the golden masks of a model folder.", "python tools/goldens.py models/compact"
    )
    parser.add_argument("folder", type=Path, metavar="MODEL", help="a model folder")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Write the folder's goldens; those of the same file on other runtimes stay."""
    folder: Path = arguments.folder
    [file] = folder.glob("*-int8.tflite")
    engine = Engine(file)
    if not SLICES.is_file():
        write_slices(engine)
    slices = golden_slices(engine, SLICES)
    engines = [Engine(file, reference=True), *([engine] if engine.kernels != BUILT_IN else [])]
    masks = {source_of(one): found(one, slices) for one in engines}
    try:
        old = goldens.read_goldens(folder, engine.card.window)
    except GliosliceError:  # none yet, or of a form that is no more
        old = Goldens("", "", {})
    if old.sha256 == sha256(file):
        masks = {**old.masks, **masks}
    write_goldens(folder, Goldens(file.name, sha256(file), masks))
    print(f"{folder / GOLDENS} is written: {'; '.join(masks)}")


def write_slices(engine: Engine) -> None:
    """Write the golden slices: every 24th of a phantom."""
    slices, _ = slices_of(phantom_case(PHANTOM).images, engine.card)
    prepared: Any = [engine.prepare(one) for one in slices[EVERY // 2 :: EVERY]]
    with whole(SLICES) as temporary:
        np.savez_compressed(
            temporary, slices=np.stack(prepared), scale=engine.input.scale,
            zero_point=engine.input.zero_point,
        )  # fmt: skip


if __name__ == "__main__":
    main()
