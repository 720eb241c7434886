"""A run that is kept in a recording, and a run that is replayed from one, without a board.

A replay sends no slice: the answers are there. What a served run's host alone knew, where the masks
belong, stands in the recording, in numbers.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from firmware_host import inputs, session
from firmware_host.inputs import Source
from firmware_host.mask_volume import Run
from glioslice.cases import Case
from glioslice.errors import GliosliceError
from glioslice.preprocessing import Crop, brain_of, crop_of
from glioslice.wire import messages
from glioslice.wire.capture import RecordedPort, Recording
from glioslice.wire.connection import Connection
from glioslice.wire.messages import BoardHello, HostHello, Mode, Volume, volume_of
from glioslice.wire.redaction import Blinder
from glioslice.wire.replay import Replay
from glioslice.wire.transport import Port


def port_for(
    arguments: argparse.Namespace, line: Callable[[], Port], say: Callable[[str], None]
) -> Port:
    """Return what the words ask for: a replay, or the `line`; either may be recorded.

    `say` takes a line for people if the recording had to end before the session. Raises
    GliosliceError for a recording that cannot be read or is there already, and PortError.
    """
    path: Path | None = arguments.record or arguments.record_masks
    if path and path.exists() and not arguments.force:
        raise GliosliceError(f"{path}: is there already; name another file, or add --force")
    replayed = arguments.replay
    port = Replay(replayed, at_once=arguments.at_once) if replayed else line()
    if path is None:
        return port
    try:
        recording = Recording(path)
    except OSError:
        port.close()
        raise
    return RecordedPort(port, recording, None if arguments.record else Blinder(), say)


def note(line: Connection, source: Source, crop: Crop) -> None:
    """Let a recording, if there is one, say where the masks of a served run belong."""
    if isinstance(line.port, RecordedPort):
        line.port.note(volume_of(source.space, source.scheme, crop))


def replay_of(line: Connection) -> Replay | None:
    """Return the replay that is at the end of a line, None for a board."""
    port = line.port.port if isinstance(line.port, RecordedPort) else line.port
    return port if isinstance(port, Replay) else None


def begin(
    line: Connection, replay: Replay, hello: BoardHello, case: Case | None
) -> tuple[HostHello, Run, Source, Volume]:
    """Return the recorded choice, its run, where its masks belong, and that in numbers.

    `case` is the one that was streamed, if it is at hand. Raises GliosliceError if it is another,
    or if the recording does not say where its masks belong.
    """
    choice = replay.script.choice
    messages.send(line, choice)
    if choice.mode is Mode.PLAY:
        volume = session.begin_playing(line)
    elif replay.script.volume is None:
        raise GliosliceError(f"{line.name}: its run ended before a slice was sent")
    else:
        volume = replay.script.volume
    crop, source = inputs.crop_of_volume(volume, hello.window), inputs.source_of_volume(volume)
    if case is not None:
        # Patients of one edition share shape and affine; the brain's extent tells them apart.
        own = crop_of(brain_of(case.images), hello.window)
        if own != crop or not np.allclose(case.space.affine, source.space.affine):
            raise GliosliceError(f"{line.name}: this is a recording of another case than --input")
        source = replace(source, name=case.name, images=case.images, truth=case.labels)
    if choice.mode is Mode.SERVE:
        note(line, source, crop)
        return choice, session.new_run(choice, crop), source, volume
    return choice, Run(Mode.PLAY, None, crop), source, volume
