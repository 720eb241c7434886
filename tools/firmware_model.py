"""Write model.h: what the firmware's hello says of a model, from its int8 file and its card.

    python tools/firmware_model.py models/compact --out build/firmware/tables

The network itself comes from `python convert/targets/firmware.py`; both go into one folder.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from device.confidence import FRACTION_BITS, STEPS_PER_LOGIT
from device.engine import Engine
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.wire.messages import WIRE_MODALITIES

HEADER = "model.h"
NAME_LENGTH = 16


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and write the header."""
    parser = cli.parser(
        "Write model.h for the firmware.", "python tools/firmware_model.py models/compact"
    )
    parser.add_argument("folder", type=Path, metavar="MODEL", help="a model folder")
    parser.add_argument("--out", type=Path, default=Path("build/firmware/tables"), metavar="DIR")
    cli.run(write_header, parser.parse_args(argv))


def write_header(arguments: argparse.Namespace) -> None:
    """Write the header; raises GliosliceError for a folder without an int8 file."""
    files = sorted(arguments.folder.glob("*-int8.tflite"))
    if len(files) != 1:
        raise GliosliceError(
            f"{arguments.folder}: has {len(files)} files *-int8.tflite; name a folder with one"
        )
    text = header(Engine(files[0], reference=True))
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_bytes(arguments.out / HEADER, text.encode())


def header(engine: Engine) -> str:
    """Return model.h; raises GliosliceError for a model that BoardHello cannot describe."""
    card, scale = engine.card, engine.input.scale
    if engine.input.dtype != np.int8 or engine.output.dtype != np.int8:
        raise GliosliceError(f"{card.name}: not an int8 network, which the firmware needs")
    if not 0 < len(card.name) <= NAME_LENGTH or not card.name.isascii() or '"' in card.name:
        raise GliosliceError(f"{card.name}: a name has 1 to {NAME_LENGTH} ASCII characters")
    codes = [WIRE_MODALITIES.index(name) + 1 for name in card.content["input"]["modalities"]]
    codes += [0] * (len(WIRE_MODALITIES) - len(codes))
    factor = round(engine.output.scale * STEPS_PER_LOGIT * (1 << FRACTION_BITS))
    return f"""/* Made from the card of {card.name} by tools/firmware_model.py. */
#ifndef MODEL_H
#define MODEL_H

#define MODEL_NAME "{card.name}"
#define MODEL_MODALITIES {{{", ".join(map(str, codes))}}}
#define MODEL_SCALE {np.float32(scale)!s}f
#define MODEL_ZERO_POINT ({engine.input.zero_point})
#define MODEL_CLIP {float(card.clip)!r}f
#define MODEL_CONFIDENCE_FACTOR {factor}

#endif
"""


if __name__ == "__main__":
    main()
