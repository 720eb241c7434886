"""A board without a network: its masks follow a rule from the image, and it misbehaves on demand.

python -m tests.firmware_host.scripted PORT BEHAVIOUR TAG     # the far end of a simulated line
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioslice.preprocessing import Crop, cut
from glioslice.wire.codecs import LOSSLESS, MASKS, decode_image, encode_mask, offered
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
    Volume,
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
    image_codecs=offered(LOSSLESS),  # `rule` looks at single values
    mask_codecs=offered(MASKS),
    sha256=SHA256,
    model="rule",
    modalities=("t1", "flair", "t2", "t1ce"),  # not the order of the kit
)


def rule(image: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return labels (X, Y): 3 where FLAIR is bright, 2 where T1 is."""
    t1, flair = image[..., 0], image[..., 1]
    return np.where(flair > 20, 3, np.where(t1 > 20, 2, 0)).astype(np.uint8)


def wait_at(gate: str) -> None:
    """Wait until the file of a behaviour `gate:FILE` is there: a run that is half done stays so.

    A test that failed leaves no process behind for ever.
    """
    end = time.monotonic() + 300
    while gate.startswith("gate:") and not Path(gate.removeprefix("gate:")).exists():
        if time.monotonic() > end:
            sys.exit(f"{gate} never opened")
        time.sleep(0.05)


class ScriptedBoard:
    """One board, one behaviour; `heard` is every message that the host sent."""

    def __init__(self, connection: Connection, behaviour: str, mute: Callable[[], None]):
        self.connection, self.behaviour, self.mute = connection, behaviour, mute
        self.heard: list[Message] = []
        self.held: list[Mask] = []
        self.last: NDArray[np.uint8] | None = None
        self.digest = MaskDigest()
        self.sent = self.failed = 0

    def hear(self) -> Message:
        message = receive(self.connection, 20.0)
        assert message is not None
        self.heard.append(message)
        return message

    def open(self, hello: BoardHello = HELLO) -> HostHello:
        self.connection.open(20.0)
        if self.behaviour == "mute":
            time.sleep(3.0)
        if self.behaviour == "version":
            data = bytearray(hello.to_bytes())
            data[1] = VERSION + 1
            self.connection.send(bytes(data))
        else:
            send(self.connection, hello)
        choice = self.hear()
        assert isinstance(choice, HostHello)
        return choice

    def serve(self, hello: BoardHello = HELLO) -> None:
        choice = self.open(hello)
        start = self.hear()
        assert isinstance(start, Start)
        for number in range(start.first, start.slices):
            message = self.hear()
            assert isinstance(message, Slice)
            shape = (*hello.window, len(hello.modalities))
            mask = rule(decode_image(message.codec, message.payload, shape))
            if self.behaviour == "fail" and number in (2, 9):
                self.failed += 1
                send(self.connection, Error(ErrorCode.ENGINE, number, "the network failed"))
            elif number == 4 and self.misbehave(message.index):
                return
            else:
                self.answer(message.index, choice.mask_codec, mask)
            if self.behaviour == "slow":
                time.sleep(0.15)
        if self.behaviour == "restart at the end":
            self.restart()
        else:
            self.end()

    def answer(self, index: int, codec: int, mask: NDArray[np.uint8]) -> None:
        self.digest.add(index, mask.tobytes())
        self.sent += 1
        payload = encode_mask(codec, mask, self.last)
        message = Mask(index, codec, 1500 + index, payload, min(254, 100 + 10 * index))
        self.last = mask
        if self.behaviour == "hold":  # answers only once four slices are here
            self.held.append(message)
            if len(self.held) < 4:
                return
            for held in self.held:
                send(self.connection, held)
            self.held = []
            self.behaviour = "serve"
            return
        send(self.connection, message)

    def misbehave(self, index: int) -> bool:
        """Do once, after four masks, what the behaviour says; return whether the run is over."""
        match self.behaviour:
            case "stop":
                send(self.connection, Error(ErrorCode.STOPPED, -1, "the board was told to stop"))
            case "short":
                self.end()
            case "silent":
                self.connection.flush(5.0)
                self.mute()
                time.sleep(2.5)
            case "restart" | "restarts":
                self.restart()
            case "exit":
                self.connection.flush(5.0)
                os._exit(7)
            case "twice":
                send(self.connection, Mask(1, 1, 0, encode_mask(1, np.zeros((32, 40), np.uint8))))
            case "beyond":
                send(self.connection, Mask(500, 1, 0, b""))
            case "damaged":
                send(self.connection, Mask(index, 1, 0, b"\x05"))
            case "out of turn":
                send(self.connection, Start(5))
            case _:
                wait_at(self.behaviour)
                return False
        return True

    def restart(self) -> None:
        """Be another board from now on; one that restarts again falls over its first slice."""
        self.connection.flush(5.0)
        if self.behaviour == "restarts":
            self.open()
        self.behaviour, self.sent, self.digest = "serve", 0, MaskDigest()
        self.last = None
        self.serve()

    def play(self, volume: Volume, labels: NDArray[np.uint8], hello: BoardHello = HELLO) -> None:
        """Play `labels` (X, Y, Z), LPS, as the masks of `volume`."""
        choice = self.open(replace(hello, modes=frozenset({Mode.PLAY})))
        if self.behaviour == "unreadable":
            send(self.connection, Error(ErrorCode.INPUT, -1, "the case cannot be read"))
            return
        first, stop = volume.z
        send(self.connection, Start(stop - first, volume))
        crop = Crop(volume.shape, volume.origin, volume.z, hello.window)
        for index, mask in enumerate(cut(labels, crop)):
            self.answer(index, choice.mask_codec, mask)
        self.end()

    def end(self) -> None:
        digest = "00" * 32 if self.behaviour == "lie" else self.digest.hexdigest()
        sent = self.sent + (self.behaviour == "miscount")
        send(self.connection, End(sent, self.failed, 1500 * self.sent, digest))
        self.connection.flush(5.0)


def main() -> None:
    port, behaviour = sys.argv[1:3]
    with Connection(open_port(port), active=False) as connection:
        try:
            ScriptedBoard(connection, behaviour, lambda: None).serve()
            while connection.receive(20.0) is not None:
                pass  # until the host says goodbye
        except (LinkError, PortError):
            pass


if __name__ == "__main__":
    main()
