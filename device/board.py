"""What a board is to a host: the hello that says so, and its way to read a slice.

A case that lies on the board, read once and ready to be played to every host that asks.

What crosses the line of it are numbers about the volume: its name and its files stay here.
"""

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.engine import Engine
from device.segment import slices_of
from glioslice.cases import MODALITIES, find_case, read_case
from glioslice.errors import GliosliceError
from glioslice.wire.codecs import IMAGES, MASKS, decode_image, offered
from glioslice.wire.messages import BoardHello, Mode, Slice, Start, volume_of

NAME_LENGTH = 16
"""Bytes that BoardHello has for the name of a model."""

STEPS = 255
"""Between the ends of the clip, where a float network does not say how its input is quantised."""


@dataclass(frozen=True)
class Played:
    """A case on the board: `slices` (Z', X, Y, 4) as the network takes them, and their Start."""

    slices: NDArray[Any]
    start: Start


@dataclass(frozen=True)
class Board:
    """The engine, its introduction, and the case that it can play, if any."""

    engine: Engine
    hello: BoardHello
    played: Played | None = None

    def image(self, message: Slice) -> NDArray[Any]:
        """Return a slice (X, Y, 4) as the network takes it: int8 as it came, else float32.

        Raises CodecError for a payload that is no image of the window.
        """
        shape = (*self.hello.window, len(self.hello.modalities))
        image = decode_image(message.codec, message.payload, shape)
        if self.engine.input.dtype == np.int8:
            return image
        steps = image.astype(np.float32) - np.float32(self.hello.zero_point)
        return steps * np.float32(self.hello.scale)


def make_board(engine: Engine, model: Path, played: Played | None = None) -> Board:
    """Return the board whose `engine` runs the file `model`: it serves, and plays what it has.

    Raises GliosliceError if the card's name of the model cannot cross the line.
    """
    card = engine.card
    if not (
        0 < len(card.name) <= NAME_LENGTH and all("!" <= letter <= "~" for letter in card.name)
    ):
        raise GliosliceError(
            f"{model}: its card calls the model '{card.name}'; a name that crosses the line has 1 "
            f"to {NAME_LENGTH} ASCII characters and no space"
        )
    hello = BoardHello(
        modes=frozenset({Mode.SERVE, Mode.PLAY} if played else {Mode.SERVE}),
        window=card.window,
        scale=engine.input.scale or 2 * card.clip / STEPS,
        zero_point=engine.input.zero_point,
        clip=card.clip,
        image_codecs=offered(IMAGES),
        mask_codecs=offered(MASKS),
        sha256=card.content["files"][model.name]["sha256"],
        model=card.name,
        modalities=MODALITIES,
        boot=secrets.randbits(64),
    )
    return Board(engine, hello, played)


def read_played(path: Path, engine: Engine) -> Played:
    """Return the case at `path` as the network takes it.

    Raises GliosliceError if there is none, it cannot be read, or its brain does not fit the window.
    """
    # An expert's mask is not played: without it a board is ready in half the time.
    case = read_case(replace(find_case(path), mask=None))
    slices, crop = slices_of(case.images, engine.card)
    prepared = np.stack([engine.prepare(one) for one in slices])
    return Played(prepared, Start(len(prepared), volume_of(case.space, case.scheme, crop)))
