"""A case that lies on the board, read once and ready to be played to every host that asks.

What crosses the line of it are numbers about the volume: its name and its files stay here.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from device.board import Played
from device.engine import Engine
from device.segment import slices_of
from glioslice.cases import find_case, read_case
from glioslice.wire.messages import Start
from glioslice.wire.volume import volume_of


def read_played(path: Path, engine: Engine) -> Played:
    """Return the case at `path` as the network takes it.

    Raises GliosliceError if there is none, it cannot be read, or its brain does not fit the window.
    """
    # An expert's mask is not played: without it a board is ready in half the time.
    case = read_case(replace(find_case(path), mask=None))
    slices, crop = slices_of(case.images, engine.card)
    prepared = np.stack([engine.prepare(one) for one in slices])
    return Played(prepared, Start(len(prepared), volume_of(case.space, case.scheme, crop)))
