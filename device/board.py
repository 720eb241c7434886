"""What a board offers to a host: its engine, its hello, and a case that it can play.

Numbers about the volume are all that leave the board; the case's name and its files stay.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.engine import Engine
from glioslice.cases import MODALITIES, find_case, read_case
from glioslice.preprocessing import slice_volume
from glioslice.wire.codecs import IMAGES, MASKS, offered_codecs
from glioslice.wire.hello import KERNELS, check_model_name
from glioslice.wire.messages import BoardHello, Mode, Start, geometry_of

FLOAT_INPUT_STEPS = 255
"""Quantization steps between the ends of the clip, for a float network that defines none."""


@dataclass(frozen=True)
class PlayedCase:
    """A case on the board: `slices` (Z', X, Y, 4) in the network's input type, and their Start."""

    slices: NDArray[Any]
    start: Start


@dataclass(frozen=True)
class Board:
    """The engine, the hello that describes it, and the case that it can play, if any."""

    engine: Engine
    hello: BoardHello
    played: PlayedCase | None = None


def make_board(engine: Engine, model: Path, played: PlayedCase | None = None) -> Board:
    """Return the board whose `engine` runs the file `model`; with `played` it also plays that case.

    Raises GliosliceError if BoardHello cannot hold the model's name.
    """
    card = engine.card
    check_model_name(card.name, model)
    hello = BoardHello(
        modes=frozenset({Mode.SERVE, Mode.PLAY} if played else {Mode.SERVE}),
        window=card.window,
        scale=engine.input.scale or 2 * card.clip / FLOAT_INPUT_STEPS,
        zero_point=engine.input.zero_point,
        clip=card.clip,
        image_codecs=offered_codecs(IMAGES),
        mask_codecs=offered_codecs(MASKS),
        sha256=card.content["files"][model.name]["sha256"],
        model=card.name,
        modalities=MODALITIES,
        boot=secrets.randbits(64),
        mirroring=engine.mirroring,
        kernels=engine.kernels if engine.kernels in KERNELS else KERNELS[0],
    )
    return Board(engine, hello, played)


def load_played_case(path: Path, engine: Engine, missing: Collection[str] = ()) -> PlayedCase:
    """Return the case at `path`, without `missing`, as slices in the network's input type.

    Raises GliosliceError if there is no case, if it cannot be read, or if its brain does not fit
    the window.
    """
    # Playing needs no ground truth; without it the board is ready in half the time.
    case = read_case(replace(find_case(path), mask=None), missing)
    slices, crop = slice_volume(case.volumes, engine.card.window, engine.card.clip)
    prepared = np.stack([engine.prepare(one) for one in slices])
    volume = geometry_of(case.space, case.scheme, crop)
    absent = sum(1 << channel for channel, m in enumerate(MODALITIES) if m in case.missing)
    return PlayedCase(prepared, Start(len(prepared), volume, absent=absent))
