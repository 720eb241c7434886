"""Write the golden masks of a model: what its int8 file computes from the golden slices.

    python tools/goldens.py models/compact

`device/goldens.py` describes the files. The slices are made once: the exponential of another
processor may differ in the last bit. `python -m device selftest` compares a board with the masks.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ROOT
from device import goldens
from device.engine import BUILT_IN, Engine
from device.goldens import GOLDENS, Goldens, compute_masks, golden_key, golden_slices, write_goldens
from glioslice import cli
from glioslice.cases import phantom_case
from glioslice.errors import GliosliceError
from glioslice.files import atomic_path, sha256
from glioslice.preprocessing import slice_volume

SLICES = ROOT / "models" / goldens.SLICES
PHANTOM, EVERY = 0, 24


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and write the goldens."""
    parser = cli.parser(
        "Write the golden masks of a model folder.", "python tools/goldens.py models/compact"
    )
    parser.add_argument("folder", type=Path, metavar="MODEL", help="a model folder")
    cli.run(write_golden_masks, parser.parse_args(argv))


def write_golden_masks(arguments: argparse.Namespace) -> None:
    """Write the folder's goldens; those of the same file on other runtimes are kept."""
    folder: Path = arguments.folder
    [file] = folder.glob("*-int8.tflite")
    engine = Engine(file)
    if not SLICES.is_file():
        write_slices(engine)
    slices = golden_slices(engine, SLICES)
    references = [True, False] if engine.kernels != BUILT_IN else [True]
    engines = [
        Engine(file, reference=reference, mirroring=mirroring)
        for mirroring in (False, True)
        for reference in references
    ]
    masks = {golden_key(one): compute_masks(one, slices) for one in engines}
    try:
        old = goldens.read_goldens(folder, engine.card.window)
    except GliosliceError:  # none yet, or in an old format
        old = Goldens("", "", {})
    if old.sha256 == sha256(file):
        masks = {**old.masks, **masks}
    write_goldens(folder, Goldens(file.name, sha256(file), masks))
    print(f"{folder / GOLDENS} is written: {'; '.join(masks)}")


def write_slices(engine: Engine) -> None:
    """Write the golden slices: every 24th of a phantom."""
    slices, _ = slice_volume(phantom_case(PHANTOM).images, engine.card.window, engine.card.clip)
    prepared: Any = [engine.prepare(one) for one in slices[EVERY // 2 :: EVERY]]
    with atomic_path(SLICES) as temporary:
        np.savez_compressed(
            temporary, slices=np.stack(prepared), scale=engine.input.scale,
            zero_point=engine.input.zero_point,
        )  # fmt: skip


if __name__ == "__main__":
    main()
