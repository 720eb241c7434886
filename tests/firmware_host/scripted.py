"""A scripted board: its masks follow a simple rule from the image, and it fails on demand.

python -m tests.firmware_host.scripted PORT BEHAVIOUR TAG     # the end of a simulated line
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioslice.cases import read_case
from glioslice.preprocessing import Crop, brain_mask, extract_slices, find_crop
from glioslice.wire.codecs import LOSSLESS, MASKS, decode_image, encode_mask, offered_codecs
from glioslice.wire.connection import Connection
from glioslice.wire.link import LinkError
from glioslice.wire.messages import (
    VERSION,
    BoardHello,
    End,
    Error,
    ErrorCode,
    HostHello,
    Mask,
    MaskDigest,
    Message,
    Mode,
    Slice,
    Start,
    VolumeGeometry,
    receive,
    send,
)
from glioslice.wire.ports import PortError, open_port

SHA256 = "ab" * 32
HELLO = BoardHello(
    modes=frozenset({Mode.SERVE}),
    window=(32, 40),  # larger than the volume of conftest.py
    scale=0.04,
    zero_point=-3,
    clip=1.0,
    image_codecs=offered_codecs(LOSSLESS),  # `rule` looks at single values
    mask_codecs=offered_codecs(MASKS),
    sha256=SHA256,
    model="rule",
    modalities=("t1", "flair", "t2", "t1ce"),  # not the usual order
)


def rule(image: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return labels (X, Y): 3 where FLAIR is bright, 2 where T1 is."""
    t1, flair = image[..., 0], image[..., 1]
    return np.where(flair > 20, 3, np.where(t1 > 20, 2, 0)).astype(np.uint8)


STEPS = 2, 4, 6, 8
"""Slices at which a behaviour `steps:FOLDER` waits for FOLDER/2 and so on."""


def wait_at(gate: str) -> None:
    """Wait until FILE of a behaviour `gate:FILE` exists, so that a run stays half done.

    The limit keeps a failed test from leaving a process behind.
    """
    end = time.monotonic() + 300
    while gate.startswith("gate:") and not Path(gate.removeprefix("gate:")).exists():
        if time.monotonic() > end:
            sys.exit(f"{gate} was never created")
        time.sleep(0.05)


class ScriptedBoard:
    """One board, one behaviour; `received` holds every message of the host."""

    def __init__(self, connection: Connection, behaviour: str, mute: Callable[[], None]):
        self.connection, self.behaviour, self.mute = connection, behaviour, mute
        self.received: list[Message] = []
        self.delayed: list[Mask] = []
        self.last: NDArray[np.uint8] | None = None
        self.digest = MaskDigest()
        self.sent = self.failed = 0

    def receive(self) -> Message:
        message = receive(self.connection, 60.0)
        assert message is not None
        self.received.append(message)
        return message

    def open(self, hello: BoardHello = HELLO) -> HostHello:
        self.connection.open(60.0)
        if self.behaviour == "mute":
            self.connection.receive(120.0)  # until the host closes the session
        if self.behaviour == "version":
            data = bytearray(hello.to_bytes())
            data[1] = VERSION + 1
            self.connection.send(bytes(data))
        else:
            send(self.connection, hello)
        choice = self.receive()
        assert isinstance(choice, HostHello)
        return choice

    def serve(self, hello: BoardHello = HELLO) -> None:
        choice = self.open(hello)
        start = self.receive()
        assert isinstance(start, Start)
        for number in range(start.first, start.slices):
            message = self.receive()
            assert isinstance(message, Slice)
            image = np.full((*hello.window, len(hello.modalities)), hello.zero_point, np.int8)
            channels = range(len(hello.modalities))
            present = [channel for channel in channels if not start.absent >> channel & 1]
            shape = (*hello.window, len(present))
            image[..., present] = decode_image(message.codec, message.payload, shape)
            mask = rule(image)
            if self.behaviour.startswith("steps:") and number in STEPS:
                wait_at(f"gate:{self.behaviour.removeprefix('steps:')}/{number}")
            if self.behaviour == "fail" and number in (2, 9):
                self.failed += 1
                send(self.connection, Error(ErrorCode.ENGINE, number, "the network failed"))
            elif number == 4 and self.misbehave(message.index):
                return
            else:
                self.send_mask(message.index, choice.mask_codec, mask)
            if self.behaviour == "slow":
                time.sleep(0.15)
        if self.behaviour == "restart at the end":
            self.restart()
        else:
            self.end()

    def send_mask(self, index: int, codec: int, mask: NDArray[np.uint8]) -> None:
        self.digest.add(index, mask.tobytes())
        self.sent += 1
        payload = encode_mask(codec, mask, self.last)
        message = Mask(index, codec, 1500 + index, payload, min(254, 100 + 10 * index))
        self.last = mask
        if self.behaviour == "delay":  # replies only once four slices have arrived
            self.delayed.append(message)
            if len(self.delayed) < 4:
                return
            for delayed in self.delayed:
                send(self.connection, delayed)
            self.delayed = []
            self.behaviour = "serve"
            return
        send(self.connection, message)

    def misbehave(self, index: int) -> bool:
        """Fail once, after four masks, by the behaviour; return whether the run is over."""
        match self.behaviour:
            case "stop":
                send(self.connection, Error(ErrorCode.STOPPED, -1, "stopped by its operator"))
            case "short":
                self.end()
            case "silent":
                self.connection.flush(60.0)
                self.mute()
                time.sleep(2.5)
            case "restart" | "restarts":
                self.restart()
            case "exit":
                self.connection.flush(60.0)
                os._exit(7)
            case "twice":
                send(self.connection, Mask(1, 1, 0, encode_mask(1, np.zeros((32, 40), np.uint8))))
            case "beyond":
                send(self.connection, Mask(500, 1, 0, b""))
            case "damaged":
                send(self.connection, Mask(index, 1, 0, b"\x05"))
            case "unexpected":
                send(self.connection, Start(5))
            case _:
                wait_at(self.behaviour)
                return False
        return True

    def restart(self) -> None:
        """Start a new session; a board that "restarts" fails again at its first slice."""
        self.connection.flush(60.0)
        if self.behaviour == "restarts":
            self.open()
        self.behaviour, self.sent, self.digest = "serve", 0, MaskDigest()
        self.last = None
        self.serve()

    def play(
        self,
        volume: VolumeGeometry,
        labels: NDArray[np.uint8],
        hello: BoardHello = HELLO,
        absent: int = 0,
    ) -> None:
        """Play `labels` (X, Y, Z), LPS, as the masks of `volume`."""
        choice = self.open(replace(hello, modes=frozenset({Mode.PLAY})))
        if self.behaviour == "unreadable":
            send(self.connection, Error(ErrorCode.INPUT, -1, "the case cannot be read"))
            return
        first, stop = volume.z
        send(self.connection, Start(stop - first, volume, absent=absent))
        crop = Crop(volume.shape, volume.origin, volume.z, hello.window)
        for index, mask in enumerate(extract_slices(labels, crop)):
            self.send_mask(index, choice.mask_codec, mask)
        self.end()

    def end(self) -> None:
        digest = "00" * 32 if self.behaviour == "lie" else self.digest.hexdigest()
        sent = self.sent + (self.behaviour == "miscount")
        send(self.connection, End(sent, self.failed, 1500 * self.sent, digest))
        self.connection.flush(60.0)


def serve(board: ScriptedBoard) -> None:
    """Serve one run."""
    board.serve()


def describe_volume(path: Path, scheme: int = 1) -> VolumeGeometry:
    """Return what a board sends of the case at `path` before it plays it."""
    case = read_case(path)
    crop = find_crop(brain_mask(case.images), HELLO.window)
    affine = tuple(case.space.affine[:3].ravel().tolist())
    return VolumeGeometry(crop.shape, crop.origin, crop.z, (1.0, 1.0, 1.0), affine, scheme, (1, 1))


def play(path: Path) -> Callable[[ScriptedBoard], None]:
    """Return a script that plays the ground truth of the case at `path`."""
    labels = read_case(path).labels
    assert labels is not None
    return lambda board: board.play(describe_volume(path), labels)


def main() -> None:
    port, behaviour = sys.argv[1:3]
    with Connection(open_port(port), active=False) as connection:
        print("READY", flush=True)
        try:
            ScriptedBoard(connection, behaviour, lambda: None).serve()
            while connection.receive(20.0) is not None:
                pass  # until the host closes the session
        except (LinkError, PortError):
            pass


if __name__ == "__main__":
    main()
