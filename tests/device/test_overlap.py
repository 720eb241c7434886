"""While the network runs on a slice, the next slice arrives and the last mask leaves."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from numpy.typing import NDArray

from device.board import make_board
from device.engine import Engine
from glioslice.model_card import shipped_folder
from glioslice.wire.messages import Empty, End, HostHello, Mask, Mode, Slice, Start
from tests.device.conftest import MODEL, PATIENCE, BoardThread, Host, Slab

SLICES = 8


class ReceivedMasks(threading.Thread):
    """The slices whose masks have reached the host."""

    def __init__(self, host: Host) -> None:
        super().__init__(daemon=True)
        self._host, self.indices = host, set[int]()

    def run(self) -> None:
        while not isinstance(message := self._host.receive(), End):
            assert isinstance(message, Mask | Empty)
            last = message.stop - 1 if isinstance(message, Empty) else message.index
            self.indices.update(range(message.index, last + 1))


class BlockingInvoke:
    """An `invoke` that returns only after the next slice arrived and the last mask left."""

    def __init__(
        self,
        engine: Engine,
        board: BoardThread,
        slices: list[Slice],
        received: ReceivedMasks,
    ) -> None:
        self._invoke, self._board, self._slices = engine.logits, board, slices
        self._received, self._index = received, 0
        self.missed: list[str] = []

    def __call__(self, prepared: NDArray[Any]) -> NDArray[Any]:
        self._wait(self._next_has_arrived, f"slice {self._index + 1} has not arrived")
        self._wait(self._last_has_left, f"mask {self._index - 1} has not left")
        self._index += 1
        return self._invoke(prepared)

    def _wait(self, done: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            time.sleep(0.001)
            if time.monotonic() > deadline:
                self.missed.append(otherwise)
                return

    def _next_has_arrived(self) -> bool:
        coming = self._slices[self._index + 1 : self._index + 2]
        return self._board.connection._link.buffered >= sum(len(s.to_bytes()) for s in coming)

    def _last_has_left(self) -> bool:
        return self._index == 0 or self._index - 1 in self._received.indices


def test_receiving_inference_and_sending_overlap(
    start: Callable[..., BoardThread], patient: Slab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network blocks at each slice until both have happened."""
    engine = Engine(shipped_folder("nano") / MODEL)
    board = start(make_board(engine, shipped_folder("nano") / MODEL))
    host = board.host()
    slices = patient.slices(host.connect())[:SLICES]
    received = ReceivedMasks(host)
    blocking = BlockingInvoke(engine, board, slices, received)
    monkeypatch.setattr(engine, "logits", blocking)
    host.send(HostHello(Mode.SERVE, slices[0].codec, 1), Start(SLICES))
    received.start()
    for one in slices:
        host.send(one)
    received.join(SLICES * PATIENCE)
    assert blocking.missed == []
    assert received.indices == set(range(SLICES))
