"""Record a session to a file, and replay such a file without a board.

A replay sends no slices: the recording holds the masks. It also holds, as numbers, where the masks
of a streamed case belong, which only the host knew.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from firmware_host import inputs, session
from firmware_host.inputs import StreamedCase
from firmware_host.mask_volume import MaskVolume
from glioslice.cases import Case
from glioslice.errors import GliosliceError
from glioslice.preprocessing import Crop, brain_mask, find_crop
from glioslice.wire import messages
from glioslice.wire.capture import RecordedPort, Recording
from glioslice.wire.connection import Connection
from glioslice.wire.messages import BoardHello, HostHello, Mode, Volume, volume_of
from glioslice.wire.redaction import Redactor
from glioslice.wire.replay import Replay
from glioslice.wire.transport import Port


def open_recorded_port(arguments: argparse.Namespace, open_board: Callable[[], Port]) -> Port:
    """Return the replay that the options name, or else the board's port; either may be recorded.

    Raises GliosliceError for a recording that cannot be read or already exists, and PortError.
    """
    path: Path | None = arguments.record or arguments.record_masks
    if path and path.exists() and not arguments.force:
        raise GliosliceError(f"{path}: already exists; name another file, or add --force")
    replayed = arguments.replay
    port = Replay(replayed, at_once=arguments.at_once) if replayed else open_board()
    if path is None:
        return port
    try:
        recording = Recording(path)
    except OSError:
        port.close()
        raise
    return RecordedPort(port, recording, None if arguments.record else Redactor())


def record_placement(connection: Connection, case: StreamedCase, crop: Crop) -> None:
    """Add to the recording, if there is one, where the masks of a streamed case belong."""
    if isinstance(connection.port, RecordedPort):
        connection.port.record_volume(volume_of(case.space, case.scheme, crop))


def find_replay(connection: Connection) -> Replay | None:
    """Return the replay behind a connection, None for a board."""
    port = connection.port
    port = port.port if isinstance(port, RecordedPort) else port
    return port if isinstance(port, Replay) else None


def start_replay(
    connection: Connection, replay: Replay, hello: BoardHello, case: Case | None
) -> tuple[HostHello, MaskVolume, StreamedCase, Volume]:
    """Return the recorded hello of the host, the empty masks, the case, and its geometry.

    `case` is the case that was streamed, if it is available. Raises GliosliceError if it is
    another one, or if the recording ended before its geometry was known.
    """
    choice = replay.script.choice
    messages.send(connection, choice)
    if choice.mode is Mode.PLAY:
        volume, missing = session.receive_played_volume(connection, hello)
    elif replay.script.volume is None:
        raise GliosliceError(f"{connection.name}: its run ended before a slice was sent")
    else:
        volume = replay.script.volume
        missing = inputs.missing_modalities(hello, replay.script.absent)
    crop, streamed = inputs.played_crop(volume, hello.window), inputs.played_case(volume, missing)
    if case is not None:
        # Patients of one edition share shape and affine; the brain's extent distinguishes them.
        own = find_crop(brain_mask(case.volumes), hello.window)
        if own != crop or not np.allclose(case.space.affine, streamed.space.affine):
            raise GliosliceError(f"{connection.name}: this is a recording of another case")
        streamed = replace(streamed, name=case.name, images=case.volumes, truth=case.labels)
    if choice.mode is Mode.SERVE:
        record_placement(connection, streamed, crop)
        return choice, session.new_mask_volume(choice, crop), streamed, volume
    return choice, MaskVolume(Mode.PLAY, None, crop), streamed, volume
