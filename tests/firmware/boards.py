"""The firmware in QEMU: how it is built and started, and a run that is compared with Python."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioslice.wire.codecs import decode_image, decode_mask, encode_image
from glioslice.wire.connection import Connection
from glioslice.wire.messages import (
    BoardHello,
    Empty,
    End,
    HostHello,
    Mask,
    MaskDigest,
    Message,
    Mode,
    Slice,
    Start,
    receive,
    send,
)
from glioslice.wire.ports import open_port
from tests.firmware.library import FIRMWARE, STAND_IN
from tools.firmware_demo import qemu_command

LOSSY, RAW, RUNS, CHANGE = 3, 0, 1, 3

BAUD = {
    "mps2-an385": 921600,
    "mps2-an386": 921600,
    "mps2-an500": 921600,
    "mps2-an505": 921600,
    "mps3-an547": 921600,
    "netduinoplus2": 115200,
}
"""Of each board. QEMU gives the rate of Arm's UART to the terminal, and ignores that of ST's."""


def build(
    out: Path,
    board: str,
    program: str = "firmware",
    net: Path = STAND_IN,
    tables: Path = Path("/nonexistent"),
) -> Path:
    """Build a program for a board, the firmware with the stand-in for the network."""
    command = ["make", "-s", f"BOARD={board}", f"PROGRAM={program}", f"OUT={out}"]
    command += [f"BAUD={BAUD[board]}", f"NET={net}", f"TABLES={tables}"]
    result = subprocess.run(command, cwd=FIRMWARE, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return out / f"{Path(program).stem}.elf"


def connect(board: str, elf: Path, line: str = "sim://", *more: str) -> Connection:
    """Start a program at the end of a simulated line; `more` are a monitor and further options."""
    command = qemu_command(board, elf, "{port}", *more)
    return Connection(open_port(line, BAUD[board], command=command), active=True)


def next_message(connection: Connection) -> Message:
    message = receive(connection, 120.0)
    assert message is not None
    return message


def open_session(connection: Connection, images: int, masks: int) -> BoardHello:
    connection.open(120.0)
    hello = next_message(connection)
    assert isinstance(hello, BoardHello)
    send(connection, HostHello(Mode.SERVE, images, masks))
    return hello


def check_run(
    connection: Connection,
    sent: NDArray[np.int8],
    compute: Callable[[NDArray[np.int8]], tuple[NDArray[np.uint8], int]],
    images: int,
    masks: int,
    absent: int = 0,
) -> list[int]:
    """Serve slices, and compare each mask and its confidence with those that `compute` returns.

    Returns the microseconds of each slice.
    """
    present = [channel for channel in range(4) if not absent >> channel & 1]
    hello = open_session(connection, images, masks)
    assert (hello.window, hello.kernels) == ((160, 192), "reference")
    send(connection, Start(len(sent) + 3, first=3, absent=absent))
    digest, previous, micros = MaskDigest(), None, list[int]()
    for index, image in enumerate(sent, 3):
        payload = encode_image(images, image[..., present])
        send(connection, Slice(index, images, payload))
        whole = np.full((160, 192, 4), hello.zero_point, np.int8)
        whole[..., present] = decode_image(images, payload, (160, 192, len(present)))
        labels, confidence = compute(whole)
        digest.add(index, labels.tobytes())
        message = next_message(connection)
        if isinstance(message, Empty):
            assert not labels.any()
            assert (message.index, message.quality) == (index, (confidence,))
            micros.append(message.device_us[0])
        else:
            assert isinstance(message, Mask)
            assert (message.index, message.quality) == (index, confidence)
            decoded = decode_mask(message.codec, message.payload, (160, 192), previous)
            np.testing.assert_array_equal(decoded, labels)
            micros.append(message.device_us)
        previous = labels
    assert next_message(connection) == End(len(sent), 0, sum(micros), digest.hexdigest())
    return micros
