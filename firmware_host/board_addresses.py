"""Which boards `--port` and `--boards` name."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from firmware_host import discovery, handshake
from firmware_host.board_pool import BoardAddress
from firmware_host.options import AUTO
from glioslice.errors import GliosliceError
from glioslice.inventory import read_inventory

ALL = "all"


def find_boards(arguments: argparse.Namespace) -> list[BoardAddress]:
    """Return the boards that --port and --boards name.

    Raises GliosliceError for a port that is named twice, for a number of boards that were not
    found, and for an inventory without ports.
    """
    ports, boards = list(arguments.ports), arguments.boards
    if boards is not None and boards != ALL and not boards.isdecimal():
        return _check_ports(_inventory_addresses(Path(boards), ports))
    if any(port.lower() == AUTO for port in ports):
        if len(ports) > 1:
            raise GliosliceError("--port auto finds the ports itself: leave the other --port out")
        ports = _replying_ports(arguments.baud)
    simulated = len(ports) == 1 and handshake.is_simulated(ports[0])
    if simulated and boards == ALL:
        raise GliosliceError(f"{ports[0]}: simulated boards have to be counted: --boards 10")
    if simulated and boards is not None:
        ports = ports * int(boards)
    if boards not in (None, ALL) and len(ports) < int(boards):
        raise GliosliceError(f"{len(ports)} boards at {', '.join(ports)}, not {boards}")
    ports = ports if boards in (None, ALL) else ports[: int(boards)]
    names = (f"sim-{n}" if handshake.is_simulated(p) else p for n, p in enumerate(ports, 1))
    return _check_ports([BoardAddress(*pair) for pair in zip(names, ports, strict=True)])


def _inventory_addresses(path: Path, ports: Sequence[str]) -> list[BoardAddress]:
    if ports:
        raise GliosliceError(f"{path}: holds the ports; leave --port out")
    entries = read_inventory(path)
    for entry in entries:
        if entry.line is None:
            raise GliosliceError(
                f"{path}: board '{entry.name}' has no line, the port of this machine that it is "
                "connected to, such as /dev/ttyUSB0"
            )
    return [BoardAddress(entry.name, entry.line) for entry in entries if entry.line]


def _replying_ports(baud: int | None) -> list[str]:
    found = discovery.probe_all(baud)
    boards = [one.port for one in found if one.hello]
    if not boards:
        reasons = "; ".join(f"{one.port}: {one.reason}" for one in found) or "there is no port"
        raise GliosliceError(f"no board found ({reasons}); see `glioslice doctor --port PORT`")
    return boards


def _check_ports(addresses: list[BoardAddress]) -> list[BoardAddress]:
    """Return `addresses`; raises GliosliceError for a device under two names."""
    first: dict[str, str] = {}
    for port in (one.port for one in addresses if not handshake.is_simulated(one.port)):
        device = os.path.realpath(port) if port.startswith("/") else port
        if device in first:
            same = "" if port == first[device] else f", which is also {first[device]}"
            raise GliosliceError(f"{port}: named twice{same}; each board needs a port of its own")
        first[device] = port
    return addresses
