"""What serving a whole volume costs: memory, and time outside the network."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from device import bench
from device.telemetry import peak_memory_mb
from glioslice.wire.messages import HostHello, Mask, Mode, Start
from glioslice.wire.ports import open_port
from glioslice.wire.simulator.port import SimPort
from tests.conftest import ROOT
from tests.device.conftest import Host, Wire
from tests.device.test_server_process import RUNNER

LIMIT_MB, OUTSIDE_MS = 150, 4.0
PATIENCE_S = 30
SLICES, ON_THEIR_WAY, BAUD = 155, 8, 4_000_000


@pytest.mark.slow
def test_memory_of_the_serving_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = [*RUNNER[:3], "--port", "{port}", "--baud", str(BAUD)]
    line = open_port(f"sim://?baud={BAUD}", BAUD, command=command)
    assert isinstance(line, SimPort)
    try:
        host = Host(Wire(line))
        host.connection.open(120.0)
        host.hear()
        golden = bench.golden_messages()
        host.say(HostHello(Mode.SERVE, golden[0].codec, 3), Start(SLICES))
        for index in range(SLICES + ON_THEIR_WAY):
            if index < SLICES:
                one = golden[index % len(golden)]
                host.say(type(one)(index, one.codec, one.payload))
            if index >= ON_THEIR_WAY:
                assert isinstance(host.hear(), Mask)
        memory = peak_memory_mb(str(line._process.pid))
    finally:
        line.close()
    assert memory is not None
    print(f"VmHWM {memory:.0f} MB")
    assert 30 < memory <= LIMIT_MB


@pytest.mark.slow
def test_time_outside_the_network() -> None:
    """The best of some runs: another process may hold the core in any of them, for seconds."""
    best, end = np.inf, time.monotonic() + PATIENCE_S
    while best > OUTSIDE_MS and time.monotonic() < end:
        done = subprocess.run(
            [sys.executable, "-m", "device", "bench", "--seconds", "2", "--json", "-"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        stages = json.loads(done.stdout)["runs"][0]["ms"]
        best = min(best, stages["decode"]["p50"] + stages["encode"]["p50"])
    assert best <= OUTSIDE_MS
