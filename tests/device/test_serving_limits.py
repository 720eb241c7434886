"""Memory of serving a whole volume, and the time spent outside the network."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from device import bench
from device.board import make_board
from device.engine import Engine
from device.telemetry import peak_memory_mb
from glioslice.model_card import find_model
from glioslice.wire.messages import HostHello, Mask, Mode, Start
from glioslice.wire.ports import open_port
from glioslice.wire.simulator.port import SimPort
from tests.conftest import ROOT
from tests.device.conftest import RUNNER, Host, SharedPort

LIMIT_MB, OUTSIDE = 150, 2.1
"""Of the serving process; of the time in the network, where 1.7 is usual."""

SLICES, IN_FLIGHT, BAUD = 155, 8, 4_000_000


@pytest.mark.slow
def test_memory_of_the_serving_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = [*RUNNER[:3], "--port", "{port}", "--baud", str(BAUD)]
    line = open_port(f"sim://?baud={BAUD}", BAUD, command=command)
    assert isinstance(line, SimPort)
    try:
        host = Host(SharedPort(line))
        host.connection.open(120.0)
        host.receive()
        golden = bench.encode_golden_slices()
        host.send(HostHello(Mode.SERVE, golden[0].codec, 3), Start(SLICES))
        for index in range(SLICES + IN_FLIGHT):
            if index < SLICES:
                one = golden[index % len(golden)]
                host.send(type(one)(index, one.codec, one.payload))
            if index >= IN_FLIGHT:
                assert isinstance(host.receive(), Mask)
        memory = peak_memory_mb(str(line._process.pid))
    finally:
        line.close()
    assert memory is not None
    print(f"VmHWM {memory:.0f} MB")
    assert 30 < memory <= LIMIT_MB


@pytest.mark.slow
def test_time_outside_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the process's own time, against that of the network: machines differ, and are busy."""
    monkeypatch.setattr("device.run.time", SimpleNamespace(perf_counter_ns=time.process_time_ns))
    model = find_model(None)
    board = make_board(Engine(model, threads=1), model)
    golden = bench.encode_golden_slices()
    times = [one for _ in range(20) for one in bench.segment_messages(board, golden)]
    outside = np.median([one.decode + one.encode for one in times])
    network = np.median([one.invoke for one in times])
    print(f"{outside / 1e6:.1f} ms outside, {network / 1e6:.1f} ms in the network")
    assert outside <= OUTSIDE * network
