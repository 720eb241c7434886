"""One run over an open connection: a thread sends slices while the caller receives masks.

    sender = send_slices(connection, hello, choice, masks, slices)
    for index in receive_masks(connection, masks, sender): ...     # each slice as it is done

Progress and the live page are updated in the loop's body. Masks received before an exception stay
in `masks`. If the board restarts, `resume_after_restart` performs the handshake again: the host
then sends the slices that have no mask yet; a board that plays starts from the beginning, since
it may hold another case now.

A run can be recorded to a file, and such a file be replayed without a board. A replay sends no
slices: the recording holds the masks. It also holds, as numbers, where the masks of a streamed case
belong, which only the host knew.
"""

import argparse
import hashlib
import logging
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from firmware_host import handshake, inputs, interrupts
from firmware_host.diagnosis import LinkWatch
from firmware_host.handshake import board_failure
from firmware_host.inputs import StreamedCase, missing_modalities
from firmware_host.mask_volume import MaskVolume
from glioslice.cases import Case
from glioslice.errors import GliosliceError
from glioslice.preprocessing import Crop, brain_mask, find_crop
from glioslice.wire import messages
from glioslice.wire.capture import RecordedPort, Recording, Redactor
from glioslice.wire.codecs import IMAGES, RAW, encode_image, encoder_identity
from glioslice.wire.connection import Connection
from glioslice.wire.messages import (
    BoardHello,
    Empty,
    End,
    Error,
    HostHello,
    Mask,
    MessageError,
    Mode,
    Slice,
    Start,
    Temperature,
    VolumeGeometry,
    geometry_of,
)
from glioslice.wire.replay import Replay
from glioslice.wire.transport import Port

logger = logging.getLogger(__name__)

ENCODERS = 2
"""Slices encoded in parallel: one core encodes 90 a second, too few for a fast link."""

POLL = 0.5
"""Seconds between two checks whether the sender has failed."""

DRAIN = 1.0
"""Seconds that an interrupted run takes at most to read what has arrived already."""

STALL = 300.0
"""Seconds without a message, on a link that is up, after which a run is given up.

A raw slice takes 130 seconds at 9600 baud.
"""


class SliceSender(threading.Thread):
    """Encodes and sends the slices (Z', X, Y, channels) from `first` on while masks come back.

    A slice whose payload exceeds `largest` bytes, unless that is 0, is sent raw.
    The connection blocks it once 64 kB are queued. It ends with the connection; `failure` is the
    exception that ended it.
    """

    def __init__(
        self,
        connection: Connection,
        codec: int,
        slices: NDArray[np.int8],
        first: int = 0,
        absent: int = 0,
        largest: int = 0,
    ) -> None:
        super().__init__(name="slice-sender", daemon=True)
        self._connection, self._codec, self.slices = connection, codec, slices
        self._first, self.absent, self._largest = first, absent, largest
        self.failure: Exception | None = None

    def run(self) -> None:
        """Send every slice, in order; the next ones are encoded meanwhile."""
        indices = iter(range(self._first, len(self.slices)))
        try:
            with ThreadPoolExecutor(ENCODERS, "encoder") as pool:
                pending = deque(pool.submit(self._encode, i) for i in islice(indices, ENCODERS))
                while pending:
                    message = pending.popleft().result()
                    pending.extend(pool.submit(self._encode, i) for i in islice(indices, 1))
                    messages.send(self._connection, message)
        except Exception as error:  # `receive_masks` raises it
            self.failure = error

    def _encode(self, index: int) -> Slice:
        codec, image = self._codec, self.slices[index]
        payload = encode_image(codec, image)
        if self._largest and len(payload) > self._largest:
            codec, payload = RAW, encode_image(RAW, image)  # which every board with a limit takes
        return Slice(index, codec, payload)


def new_mask_volume(choice: HostHello, crop: Crop) -> MaskVolume:
    """Return the empty masks of a case whose slices the host sends."""
    return MaskVolume(Mode.SERVE, IMAGES[choice.image_codec].name, crop)


def send_slices(
    connection: Connection,
    hello: BoardHello,
    choice: HostHello,
    masks: MaskVolume,
    slices: NDArray[np.int8],
    absent: int = 0,
) -> SliceSender:
    """Announce the run and start sending the slices for which neither end has a mask.

    The bits of `absent` are the board's channels that the slices lack. A board that still holds
    masks of this run, from a host that was lost, sends them by itself.
    """
    key, first = run_key(hello, choice.image_codec, slices, absent), masks.start_session()
    messages.send(connection, Start(len(slices), first=first, key=key, absent=absent))
    known = hello.answered if hello.kept == key else 0
    sender = SliceSender(
        connection, choice.image_codec, slices, max(first, known), absent, hello.largest_payload
    )
    sender.start()
    return sender


def run_key(hello: BoardHello, codec: int, slices: NDArray[np.int8], absent: int = 0) -> int:
    """Return the key by which a board recognizes this run after a reconnect; never 0.

    It hashes the slices with a random number of the board, so that it identifies no scan. Lossy
    slices are the same only from the same encoder with the same settings.
    """
    text = struct.pack("<QBB4H", hello.boot, codec, absent, *slices.shape) + slices.tobytes()
    text += encoder_identity(codec)
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") or 1


def receive_played_volume(
    connection: Connection, hello: BoardHello, stall: float = STALL
) -> tuple[VolumeGeometry, tuple[str, ...]]:
    """Wait until the board has read its case; return its geometry, and the modalities it lacks.

    Raises BoardFailed if it cannot be read, MessageError for another message.
    """
    deadline, watch = time.monotonic() + stall, LinkWatch(connection)
    while (message := messages.receive(connection, POLL)) is None:
        watch.check()
        if time.monotonic() >= deadline:
            raise stall_error(connection, stall)
    if isinstance(message, Error):
        raise board_failure(message)
    if not isinstance(message, Start) or message.volume is None:
        raise MessageError("the board sent no volume where one was expected")
    return message.volume, missing_modalities(hello, message.absent)


def receive_masks(
    connection: Connection,
    masks: MaskVolume,
    sender: SliceSender | None = None,
    stall: float = STALL,
) -> Iterator[int]:
    """Yield the index of each slice as its mask, or its failure, arrives, until the run ends.

    Raises what the connection raises, and LinkAltersBytes, BoardFailed, MessageError, CodecError,
    DigestMismatch. After a deferred interrupt it reads what has arrived, then raises
    KeyboardInterrupt.
    """
    while True:
        message = next_message(connection, sender, stall)
        match message:
            case Mask() | Empty():
                yield from masks.add(message)
            case Temperature():
                masks.temperature_c = message.celsius
            case Error(index=-1):
                raise board_failure(message)
            case Error():
                masks.add_failure(message)
                yield message.index
            case End():
                masks.finish(message)
                return
            case _:
                name = type(message).__name__
                raise MessageError(f"the board sent an unexpected {name}; restart its server")


def next_message(
    connection: Connection, sender: SliceSender | None, stall: float
) -> messages.Message:
    """Wait for the next message, up to `stall` seconds.

    After an interrupt it is one that has arrived already; if there is none, or they take longer
    than DRAIN, this raises KeyboardInterrupt.
    """
    started, watch = time.monotonic(), LinkWatch(connection)
    while True:
        interrupted = interrupts.requested()
        message = messages.receive(connection, 0.0 if interrupted else POLL)
        if message is None or time.monotonic() >= interrupts.requested_at() + DRAIN:
            interrupts.raise_requested()
        if message is not None:
            return message
        if sender and sender.failure:
            raise sender.failure
        if time.monotonic() - started >= stall:
            raise stall_error(connection, stall)
        watch.check()


def stall_error(connection: Connection, seconds: float) -> GliosliceError:
    """Return the error for a link that is up but carries no messages."""
    return GliosliceError(
        f"{connection.name}: the link is up but the board has sent nothing for {seconds:.0f} s; "
        "restart its server"
    )


def resume_after_restart(
    connection: Connection,
    hello: BoardHello,
    choice: HostHello,
    masks: MaskVolume,
    *,
    sender: SliceSender | None,
    played: VolumeGeometry | None,
) -> tuple[BoardHello, SliceSender | None]:
    """Continue a run on a board that has restarted; return its new hello and the new sender.

    Raises GliosliceError if the board now differs, and what `receive_hello` raises.
    """
    logger.warning(
        "%s: the board has restarted; continuing with the missing slices", connection.name
    )
    if sender is not None:
        sender.join()  # it must not send into the new session
    again = handshake.receive_hello(connection, handshake.HELLO_TIMEOUT)
    if replace(again, boot=hello.boot, kept=hello.kept, answered=hello.answered) != hello:
        raise GliosliceError(
            f"{connection.name}: the board restarted with another model or version; run it again"
        )
    messages.send(connection, choice)
    if choice.mode is Mode.PLAY:
        if receive_played_volume(connection, hello)[0] != played:
            raise GliosliceError(
                f"{connection.name}: the board restarted with another case; run it again"
            )
        masks.reset()
        return again, None
    if sender is None:  # a replay, which needs no slices
        masks.start_session()
        return again, None
    return again, send_slices(connection, again, choice, masks, sender.slices, sender.absent)


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
    except (GliosliceError, OSError):
        port.close()
        raise
    return RecordedPort(port, recording, None if arguments.record else Redactor())


def record_placement(connection: Connection, case: StreamedCase, crop: Crop) -> None:
    """Add to the recording, if there is one, where the masks of a streamed case belong."""
    if isinstance(connection.port, RecordedPort):
        connection.port.record_volume(geometry_of(case.space, case.scheme, crop))


def find_replay(connection: Connection) -> Replay | None:
    """Return the replay behind a connection, None for a board."""
    port = connection.port
    port = port.port if isinstance(port, RecordedPort) else port
    return port if isinstance(port, Replay) else None


def start_replay(
    connection: Connection, replay: Replay, hello: BoardHello, case: Case | None
) -> tuple[HostHello, MaskVolume, StreamedCase, VolumeGeometry]:
    """Return the recorded hello of the host, the empty masks, the case, and its geometry.

    `case` is the case that was streamed, if it is available. Raises GliosliceError if it is
    another one, or if the recording ended before its geometry was known.
    """
    choice = replay.script.choice
    messages.send(connection, choice)
    if choice.mode is Mode.PLAY:
        volume, missing = receive_played_volume(connection, hello)
    elif replay.script.volume is None:
        raise GliosliceError(f"{connection.name}: its run ended before a slice was sent")
    else:
        volume = replay.script.volume
        missing = missing_modalities(hello, replay.script.absent)
    crop, streamed = inputs.played_crop(volume, hello.window), inputs.played_case(volume, missing)
    if case is not None:
        # Patients of one edition share shape and affine; the brain's extent distinguishes them.
        own = find_crop(brain_mask(case.volumes), hello.window)
        if own != crop or not np.allclose(case.space.affine, streamed.space.affine):
            raise GliosliceError(f"{connection.name}: this is a recording of another case")
        streamed = replace(streamed, name=case.name, images=case.volumes, truth=case.labels)
    if choice.mode is Mode.SERVE:
        record_placement(connection, streamed, crop)
        return choice, new_mask_volume(choice, crop), streamed, volume
    return choice, MaskVolume(Mode.PLAY, None, crop), streamed, volume
