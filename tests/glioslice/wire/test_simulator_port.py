"""A real pseudo-terminal with a real process at its far end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from glioslice.wire.ports import LineLost, Port, PortError, open_port
from glioslice.wire.simulator import port as sim
from glioslice.wire.simulator.line import LineQuality
from glioslice.wire.simulator.port import SimPort, parse_url

Program = Callable[[str], list[str]]


def read_until(port: Port, size: int, seconds: float = 60.0) -> bytes:
    data, deadline = b"", time.monotonic() + seconds
    while len(data) < size and time.monotonic() < deadline:
        data += port.read(0.5)
    return data


def pid_of(port: Port) -> int:
    assert isinstance(port, SimPort)
    return port._process.pid


def reaped(pid: int) -> bool:
    """Return whether this child of ours has ended and left no zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def running(pid: int) -> bool:
    """Return whether a process that is no child of ours still runs."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return listed.stdout.strip()[:1] not in ("", "Z")


def test_options_of_the_url() -> None:
    assert parse_url("sim://", 9600) == LineQuality(baud=9600)
    url = "sim://?baud=921600&errors=1e-5&loss=0.005&latency=16ms&seed=3"
    assert parse_url(url, 9600) == LineQuality(921600, 1e-5, 0.005, 0.016, 3)
    assert parse_url("sim://?latency=0.5s", 9600).latency == 0.5
    assert parse_url("sim://?latency=2", 9600).latency == 2.0
    assert parse_url("sim://?unplug=3s&after=500ms", 9600) == LineQuality(
        9600, unplug=3.0, after=0.5
    )


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("bad=1", "no option 'bad'"),
        ("baud=fast", "'fast' is not a value for baud"),
        ("baud=0", "not a value for baud"),
        ("errors=1", "not a value for errors"),
        ("errors=nan", "not a value for errors"),
        ("loss=-0.1", "not a value for loss"),
        ("latency=1h", "not a value for latency"),
        ("latency=61s", "not a value for latency"),
        ("unplug=61s", "not a value for unplug"),
        ("seed=", "not a value for seed"),
    ],
)
def test_a_wrong_option_is_named(query: str, what: str) -> None:
    with pytest.raises(PortError, match=what) as caught:
        open_port(f"sim://?{query}", command=["true"])
    assert caught.value.reason == "invalid"


def test_what_cannot_be_started_is_named() -> None:
    with pytest.raises(PortError, match="needs a command"):
        open_port("sim://")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(PortError, match="no-such-program cannot be started") as caught:
        open_port("sim://", command=["no-such-program", "{port}"])
    assert caught.value.reason == "missing"
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)


def test_bytes_go_to_the_process_and_back(
    far_end: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim, "GRACE", 60.0)  # it ends when it is asked to
    port = open_port("sim://?baud=921600", command=far_end("echo"))
    assert read_until(port, 5) == b"ready"
    sent = bytes(range(256)) * 40
    port.write(sent)
    assert read_until(port, len(sent)) == sent
    started = time.monotonic()
    port.close()
    port.close()
    assert time.monotonic() - started < 30.0
    assert reaped(pid_of(port))
    with pytest.raises(LineLost, match="closed"):
        port.read(1.0)
    with pytest.raises(LineLost, match="closed"):
        port.write(b"x")


def test_bytes_that_the_line_loses_do_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim, "DRAIN", 60.0)
    port = open_port("sim://?loss=0.999", command=["sleep", "30"])
    port.write(b"x" * 50)
    started = time.monotonic()
    port.close()
    assert time.monotonic() - started < 30.0


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.parametrize("baud", [9600, 115200, 921600, 3_000_000])
def test_the_line_keeps_its_rate(far_end: Program, baud: int) -> None:
    port = open_port("sim://", baud, command=[*far_end("echo"), str(baud)])
    assert read_until(port, 5) == b"ready"
    size = baud // 10 * 2
    data = bytes(1024)
    for _ in range(5):  # a busy machine may be late, but not each time
        started = time.monotonic()
        sent = received = 0
        while sent < size or received < sent:  # both ways, no more on the way than buffers hold
            if sent < size and sent - received < 8192:
                port.write(data)
                sent += len(data)
            else:
                received += len(port.read(1.0))
        seconds = time.monotonic() - started
        assert received == sent
        assert 0.99 * sent * 10 / baud < seconds
        extra = 2 * min(8192, size) * 10 / baud  # the last bytes still come back
        if on_time := seconds < 1.05 * sent * 10 / baud + extra:
            break
    port.close()
    assert on_time, seconds


def test_a_killed_process_is_a_lost_line_and_no_zombie(far_end: Program) -> None:
    port = open_port("sim://", command=far_end("echo"))
    assert read_until(port, 5) == b"ready"
    os.kill(pid_of(port), signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(LineLost, match="has ended \\(signal 9\\)"):
        while True:
            port.read(1.0)
    assert time.monotonic() - started < 30.0
    assert reaped(pid_of(port))
    with pytest.raises(LineLost, match="signal 9"):
        port.write(b"x")
    port.close()


def test_the_last_bytes_of_a_process_are_delivered_and_its_exit_code_named(
    far_end: Program,
) -> None:
    port = open_port("sim://", command=far_end("failing"))
    assert read_until(port, 10) == b"last words"
    with pytest.raises(LineLost, match="exit code 3"):
        while True:
            port.read(1.0)
    port.close()


@pytest.mark.slow
def test_a_process_that_will_not_end_is_killed(far_end: Program) -> None:
    port = open_port("sim://", command=far_end("stubborn"))
    assert read_until(port, 5) == b"ready"
    port.close()
    assert reaped(pid_of(port))


def test_a_process_ends_when_its_host_is_killed(far_end: Program) -> None:
    code = f"""
import time
from glioslice.wire.ports import open_port
port = open_port("sim://", command={far_end("echo")!r})
while not port.read(1.0):
    pass
print(port._process.pid, flush=True)
time.sleep(60)
"""
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert host.stdout is not None
    child = int(host.stdout.readline())
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()
    deadline = time.monotonic() + 60.0
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(child)


@pytest.mark.slow
def test_a_bad_line_damages_bytes_the_same_way_each_time(far_end: Program) -> None:
    received = []
    for _ in range(2):
        port = open_port("sim://?baud=921600&errors=1e-3&seed=4", command=far_end("echo"))
        read_until(port, 5)
        port.write(bytes(5000))
        received.append(read_until(port, 5000))
        port.close()
    assert received[0] == received[1] != bytes(5000)


@pytest.mark.slow
def test_a_process_that_has_not_opened_its_port_echoes_nothing(far_end: Program) -> None:
    port = open_port("sim://", command=far_end("asleep"))
    port.write(b"is anybody there?\r\n")
    assert port.read(1.0) == b""
    port.close()


@pytest.mark.parametrize(("near", "far"), [(230400, 115200), (115200, 9600), (921600, 921600)])
def test_bytes_at_another_rate_and_at_one_too_fast_are_noise(
    far_end: Program, near: int, far: int
) -> None:
    port = open_port("sim://?baud=460800", near, command=[*far_end("echo"), str(far)])
    received = read_until(port, 5)
    assert len(received) == 5 and received != b"ready"
    port.close()


def test_a_slow_line_takes_bytes_at_the_first_rate(far_end: Program) -> None:
    port = open_port("sim://?baud=9600", command=far_end("echo"))
    assert isinstance(port, SimPort) and port.rates == ()
    assert read_until(port, 5) == b"ready"
    started = time.monotonic()
    port.write(bytes(480))
    assert read_until(port, 480) == bytes(480)
    assert time.monotonic() - started > 0.5
    port.close()


def test_both_ends_take_another_rate_once_their_bytes_have_left(far_end: Program) -> None:
    port = open_port("sim://?baud=460800", command=[*far_end("echo"), "460800"])
    assert isinstance(port, SimPort)
    assert read_until(port, 5) != b"ready"  # we listen at 115200
    started = time.monotonic()
    port.write(bytes(2880))
    port.set_rate(460800)
    assert time.monotonic() - started > 0.2  # at 115200 they take a quarter of a second
    time.sleep(0.3)
    port.write(b"at last")
    received, deadline = b"", time.monotonic() + 60.0
    while not received.endswith(b"at last") and time.monotonic() < deadline:
        received += port.read(0.5)  # what came of the bytes at the wrong rate is before it
    assert received.endswith(b"at last")
    port.close()


def test_a_cable_is_pulled_out_and_put_back(
    far_end: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead)
    monkeypatch.setattr(sim, "time", clock)
    port = open_port("sim://?baud=921600&unplug=60s&after=300ms", command=far_end("echo"))
    assert isinstance(port, SimPort)
    assert read_until(port, 5) == b"ready"
    with pytest.raises(LineLost, match="its cable was pulled out"):
        while True:
            port.read(1.0)
    with pytest.raises(LineLost, match="its cable was pulled out"):
        port.write(b"x")
    with pytest.raises(PortError, match="no such port") as caught:
        port.reopen()
    assert caught.value.reason == "missing"
    ahead = 60.0
    port.reopen()
    port.write(b"back")
    assert read_until(port, 4) == b"back"
    port.close()
    with pytest.raises(PortError, match="was closed"):
        port.reopen()


@pytest.mark.slow
@pytest.mark.serial
def test_a_busy_host_does_not_slow_the_line(far_end: Program) -> None:
    port = open_port("sim://?baud=115200", command=far_end("echo"))
    assert isinstance(port, SimPort)
    assert read_until(port, 5) == b"ready"
    done = threading.Event()

    def hinder() -> None:
        while not done.is_set():
            with port._changed:
                time.sleep(0.03)
            time.sleep(0.005)

    threading.Thread(target=hinder, daemon=True).start()
    for _ in range(5):  # a busy machine may be late, but not each time
        started = time.monotonic()
        for _ in range(4):
            port.write(bytes(2880))
        received = read_until(port, 11520)
        seconds = time.monotonic() - started
        assert len(received) == 11520 and seconds > 0.95
        if on_time := seconds < 2.0:
            break
    done.set()
    port.close()
    assert on_time, seconds


LATE = """
import os, sys, time, tty
line = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
tty.setraw(line)
os.write(line, b"ready")
time.sleep(1.0)  # more than fits a pseudo-terminal arrives meanwhile
while True:
    os.write(line, os.read(line, 65536))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "least"), [(50_000, 50_000), (120_000, 64_000)])
def test_a_busy_process_loses_nothing_that_a_terminal_would_hold(sent: int, least: int) -> None:
    command = [sys.executable, "-c", LATE, "{port}"]
    port = open_port("sim://?baud=3000000", 3_000_000, command=command)
    assert read_until(port, 5) == b"ready"
    data = bytes(n % 251 for n in range(sent))
    for place in range(0, sent, 1000):
        port.write(data[place : place + 1000])
    received = read_until(port, least)
    port.close()
    assert received[:least] == data[:least]
