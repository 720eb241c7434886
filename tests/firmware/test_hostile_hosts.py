"""Hosts that send valid frames with hostile messages, to the board in C and to the one in Python.

The C is the whole firmware as a process of this machine, with a stand-in for the network and with
sanitizers that end the process.
"""

import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from device.board import make_board
from device.confidence import mask_confidence
from device.engine import Engine
from glioslice.labels import to_labels
from glioslice.model_card import shipped_folder
from glioslice.wire.codecs import decode_image, decode_mask, encode_image
from glioslice.wire.connection import Connection
from glioslice.wire.link import Link, Settings, State
from glioslice.wire.messages import (
    BoardHello,
    Empty,
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
    Temperature,
    VolumeGeometry,
    receive,
)
from glioslice.wire.ports import open_port
from glioslice.wire.transport import Port
from tests.device.conftest import MODEL, BoardThread, SharedPort
from tests.firmware.boards import CHANGE, LOSSY, RAW, RUNS
from tests.firmware.library import FIRMWARE, STAND_IN, TESTS, compile_host, compile_main
from tests.firmware.test_boards import slices, stand_in

pytestmark = pytest.mark.slow

BAUD = 4_000_000
PATIENCE = 60.0
ZLIB = 1

Segment = Callable[[NDArray[np.int8]], tuple[NDArray[np.uint8], int]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    sanitizers = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    options = [*sanitizers, f"-DHOST_RATE=B{BAUD}", f"-I{FIRMWARE / 'boards'}"]
    headers = [f"-I{folder}" for folder in (FIRMWARE / "wire", FIRMWARE / "server", STAND_IN)]
    main = compile_main(folder / "main.o", [*options, *headers])
    return compile_host(folder / "board", "gcc", options, [TESTS / "host_board.c", main])


@pytest.fixture(params=["C", "Python"])
def board(request: pytest.FixtureRequest) -> Iterator[tuple[Port, Segment]]:
    """The port of a board and what its masks and their confidence are to be."""
    if request.param == "C":
        command = [str(request.getfixturevalue("program")), "{port}"]
        port = open_port(f"sim://?baud={BAUD}", BAUD, command=command)
        yield port, stand_in
        port.close()
        return
    path = shipped_folder("nano") / MODEL
    engine, own = Engine(path), Engine(path)  # the board is another thread

    def segment(image: NDArray[np.int8]) -> tuple[NDArray[np.uint8], int]:
        logits = engine.logits(image)
        labels = np.ascontiguousarray(to_labels(engine.regions(logits)))
        return labels, mask_confidence(logits, engine.logit_scale, engine.logit_zero_point)

    served = BoardThread(make_board(own, path))
    yield served.port, segment
    served.stop.request()
    assert served.ended()


class HostileHost:
    """Sends what a host must not, and checks each reply against docs/wire.md."""

    def __init__(self, port: Port, segment: Segment, seed: int) -> None:
        self.connection = Connection(SharedPort(port), active=True)
        self.connection.open(PATIENCE)
        hello = self.receive()
        assert isinstance(hello, BoardHello)
        self.hello, self._segment = hello, segment
        self._chance, self._images = random.Random(seed), slices(4)[1:]
        self.codec: int | None = None
        self.expected = self.stop = self.failed = self.micros = self.absent = 0
        self.previous: NDArray[np.uint8] | None = None
        self.indices: list[int] = []
        self.digest = MaskDigest()

    @property
    def running(self) -> bool:
        return self.expected < self.stop

    def receive(self) -> Message:
        while isinstance(message := receive(self.connection, PATIENCE), Temperature):
            pass
        assert message is not None, "no reply"
        return message

    def check_refused(self, data: bytes, index: int = -1) -> None:
        """Send bytes that change nothing."""
        self.connection.send(data)
        message = self.receive()
        assert isinstance(message, Error), (data[:20].hex(), message)
        assert (message.code, message.index) == (ErrorCode.REFUSED, index), data[:20].hex()

    def choose(self, codec: int) -> None:
        choice = HostHello(Mode.SERVE, LOSSY, codec).to_bytes()
        if self.running:
            self.check_refused(choice)
            return
        self.connection.send(choice)
        self.codec = codec

    def start(self, count: int, first: int, absent: int) -> None:
        message = Start(count, first=first, absent=absent).to_bytes()
        if self.running or self.codec is None:
            self.check_refused(message)
            return
        self.connection.send(message)
        self.expected, self.stop, self.absent = first, count, absent
        self.failed, self.micros, self.previous, self.indices = 0, 0, None, []
        self.digest = MaskDigest()
        self.run_codec = self.codec

    def check_slice(self, codec: int) -> None:
        """Send the expected slice and check its mask."""
        present = [channel for channel in range(4) if not self.absent >> channel & 1]
        image = self._images[self._chance.randrange(len(self._images))]
        payload = encode_image(codec, image[..., present])
        self.connection.send(Slice(self.expected, codec, payload).to_bytes())
        whole = np.full(image.shape, self.hello.zero_point, np.int8)
        whole[..., present] = decode_image(codec, payload, (160, 192, len(present)))
        labels, confidence = self._segment(whole)
        message = self.receive()
        if isinstance(message, Empty):
            assert not labels.any()
            assert (message.index, message.quality) == (self.expected, (confidence,))
            self.micros += message.device_us[0]
        else:
            assert isinstance(message, Mask), message
            assert (message.index, message.codec) == (self.expected, self.run_codec)
            assert message.quality == confidence
            decoded = decode_mask(message.codec, message.payload, (160, 192), self.previous)
            np.testing.assert_array_equal(decoded, labels)
            self.micros += message.device_us
        self.previous = labels
        self.digest.add(self.expected, labels.tobytes())
        self.indices.append(self.expected)
        self._advance()

    def check_failed(self, codec: int, payload: bytes) -> None:
        """Send the expected slice with a payload that is none."""
        self.connection.send(Slice(self.expected, codec, payload).to_bytes())
        message = self.receive()
        assert isinstance(message, Error), message
        assert (message.code, message.index) == (ErrorCode.SLICE, self.expected)
        self.previous = None
        self.failed += 1
        self._advance()

    def _advance(self) -> None:
        self.expected += 1
        if not self.running:
            end = End(len(self.indices), self.failed, self.micros, self.digest.hexdigest())
            assert self.receive() == end

    def send_anything(self) -> None:
        """Take one step, which the board must survive."""
        bad = [self._hellos, self._starts, self._starts, self._strangers, *3 * [self._bad_slices]]
        step = self._chance.choice([*bad, *5 * [self._good_slice]])
        step()

    def _hellos(self) -> None:
        bad = [b"\2\4\1\3", b"\2\4\1\3\3\0", b"\2\4\0\3\3", b"\2\4\3\3\3", b"\2\4\1\x09\3"]
        bad += [b"\2\4\1\x10\3", b"\2\4\1\3\x10", b"\2\4\1\3\0", b"\2\4\1\3\2", b"\2\4\1\3\xff"]
        bad += [b"\2\4\2\3\3", b"\2\3\1\3\3", b"\2\xff", b"\2", b"\1\4", b"\1\5" + bytes(96)]
        if self._chance.random() < 0.5:
            self.choose(self._chance.choice([RUNS, CHANGE]))
        else:
            self.check_refused(self._chance.choice(bad))

    def _starts(self) -> None:
        chance = self._chance
        if chance.random() < 0.6:
            count = chance.choice([1, 2, 3, 9, 1024])
            first = chance.randrange(max(0, count - 4), count)
            self.start(count, first, chance.choice([0, 0, 1, 8, 0b0101, 0b1110]))
            return
        volume = VolumeGeometry((9, 9, 9), (0, 0), (0, 3), (1.0,) * 3, (0.0,) * 12, 0, (0, 0))
        layout = struct.Struct("<BBHHQ")
        fields = [(0xF0, 3, 0), (0, 0, 0), (0, 3, 3), (0, 3, 9), (0, 1025, 0), (0, 65535, 65535)]
        fields += [(2, 3, 0), (8, 3, 0), (1, 3, 0)]
        bad = [layout.pack(3, *some, 0) for some in fields]
        bad += [Start(3, volume=volume).to_bytes(), bad[0][:-1], bad[0] + b"\0", b"\3"]
        self.check_refused(chance.choice(bad))

    def _strangers(self) -> None:
        """Messages that only a board sends, and none at all."""
        chance = self._chance
        known: list[Message] = [Mask(max(0, self.expected), RUNS, 1, b"\3"), Empty(0, (1,), (1,))]
        known += [End(1, 0, 1, bytes(32).hex()), Error(ErrorCode.STOPPED, -1, "stop")]
        known += [self.hello, Temperature(1)]
        data = chance.choice(known).to_bytes()
        if chance.random() < 0.5:
            data = bytes([chance.choice([0, *range(10, 256)])]) + chance.randbytes(
                chance.choice([0, 1, 97, 5000])
            )
        self.check_refused(data)

    def _bad_slices(self) -> None:
        chance = self._chance
        pixels = 160 * 192 * (4 - self.absent.bit_count())
        codec = chance.choice([RAW, LOSSY])
        if not self.running or chance.random() < 0.4:
            behind = [self.expected - 1] if self.expected else []
            beyond = [1023, 1024, 65535]
            index = chance.choice([*behind, *[i for i in beyond if i >= self.stop]])
            payload = chance.choice([b"", bytes(pixels), encode_image(LOSSY, self._images[0])])
            data = Slice(index, codec, payload).to_bytes()
            self.check_refused(data, index if index < 1024 else -1)
            return
        if chance.random() < 0.1:
            self.check_refused(b"\4" + bytes(chance.randrange(3)))
            return
        good = encode_image(LOSSY, self._images[1])
        broken = bytearray(good)
        broken[chance.randrange(3, 10)] ^= 1 << chance.randrange(6)
        bad: list[tuple[int, bytes]] = [(LOSSY, bytes(broken)), (LOSSY, good[:-20]), (LOSSY, b"")]
        bad += [(RAW, b""), (RAW, bytes(pixels - 1)), (RAW, bytes(pixels + 1)), (ZLIB, b"x")]
        bad += [(LOSSY, bytes(262_140)), (RAW, bytes(262_140)), (255, good), (LOSSY, good[:10])]
        self.check_failed(*chance.choice(bad))

    def _good_slice(self) -> None:
        if self.running:
            self.check_slice(self._chance.choice([LOSSY, LOSSY, LOSSY, RAW]))
        else:
            self.check_refused(Slice(0, RAW, bytes(8)).to_bytes(), 0)


@pytest.mark.parametrize("seed", range(2))
def test_no_message_changes_what_the_next_mask_is(seed: int, board: tuple[Port, Segment]) -> None:
    host = HostileHost(*board, seed)
    for _ in range(120):
        host.send_anything()
    while host.running and host.stop - host.expected < 10:
        host.check_slice(LOSSY)


def test_a_host_that_acknowledges_nothing_keeps_no_other_host_out(
    board: tuple[Port, Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for more masks than the board can hold, and reads and sends as before."""
    port, segment = board
    link = Link(Settings(1024, 1024), active=True)
    monkeypatch.setattr(link.receiver, "add", lambda *_: False)
    noise = slices(2)[1]
    link.sender.send(HostHello(Mode.SERVE, LOSSY, RUNS).to_bytes())
    link.sender.send(Start(40).to_bytes())
    for index in range(40):
        link.sender.send(Slice(index, LOSSY, encode_image(LOSSY, noise)).to_bytes())
    answered, began = 0, time.monotonic()
    while (now := time.monotonic() - began) < 4.0:
        answered += bool(received := port.read(0.01))
        link.receive_bytes(received, now)
        while frame := link.outgoing(now):
            port.write(frame)
    assert link.state is State.OPEN and answered > 4
    for _ in range(2):  # the second of these does not wait for the first one's CLOSE, either
        host = HostileHost(port, segment, 1)
        assert not (host.hello.kept or host.hello.answered)
        host.choose(CHANGE)
        host.start(3, 0, 0)
        host.check_slice(LOSSY)
        host.check_slice(LOSSY)
