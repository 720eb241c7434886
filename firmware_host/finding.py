"""The board among the ports of this machine: each likely one is asked, all at once.

    python firmware_host/stream.py --list                     # what is at which port
    python firmware_host/stream.py --port auto --input CASE   # the port where a board answers

A port that another program holds or that speaks by itself is left alone, Bluetooth's are not even
opened. Opening a port is felt by some boards all the same: a few start anew.
"""

import argparse
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serial.tools import list_ports

from firmware_host.asking import Answer, Times, asked
from firmware_host.board import known_models
from firmware_host.telling import ending, teller_of
from firmware_host.verdicts import ADVICE
from firmware_host.words import AUTO
from glioslice.errors import GliosliceError
from glioslice.wire.messages import VERSION, BoardHello
from glioslice.wire.ports import BAUD

TIMES = Times(listen=0.3, call=4.0)
"""A board whose host was lost may take two seconds to come back to the rate at which all begin."""

LIMIT = 8.0
"""Seconds after which a port that has not even opened or closed is left behind."""

UNLIKELY = re.compile(r"rfcomm|bluetooth|BLTH|debug-console", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """What is at a port: a board that has said hello, or else why it is none."""

    port: str
    description: str
    hello: BoardHello | None = None
    wrong: str = ""

    @property
    def seen(self) -> str:
        """What was found, for people."""
        if self.hello is None:
            return f"no board: {self.wrong}"
        known = "" if self.hello.sha256 in known_models() else ", not known here"
        model = f"{self.hello.model}, SHA-256 {self.hello.sha256[:16]}...{known}"
        return f"board: model {model}, protocol {VERSION}"

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        hello = self.hello
        model = None if hello is None else {"name": hello.model, "sha256": hello.sha256}
        protocol = None if hello is None else VERSION
        return {
            "port": self.port,
            "description": self.description,
            "model": model,
            "protocol": protocol,
            "wrong": self.wrong or None,
        }


def work(arguments: argparse.Namespace) -> None:
    """Print what is at which port."""
    teller = teller_of(arguments)
    with ending(teller):
        found = find(arguments.baud)
        wide = max((len(f"{one.port}{one.description}") for one in found), default=0) + 4
        for one in found:
            teller.said(f"{f'{one.port}  {one.description}':{wide}}{one.seen}")
            teller.event("port", **one.as_json())
        if not found:
            teller.said(f"no serial port is here; {ADVICE['no port']}")


def port_of(port: str, baud: int | None, tell: Callable[[str], None]) -> str:
    """Return `port`, or for AUTO the one where a board answers; `tell` hears what was found.

    Raises GliosliceError if none does, or more than one.
    """
    if port.lower() != AUTO:
        return port
    found = find(baud)
    for one in found:
        tell(f"{one.port}: {one.seen}")
    boards = [one for one in found if one.hello]
    if len(boards) == 1:
        return boards[0].port
    if boards:
        names = " and ".join(f"{one.port} ({one.hello.model})" for one in boards if one.hello)
        raise GliosliceError(f"boards answer at {names}; name one: --port {boards[0].port}")
    if not found:
        raise GliosliceError(f"this machine has no serial port; {ADVICE['no port']}")
    asked = "; ".join(f"{one.port}: {one.wrong}" for one in found)
    raise GliosliceError(f"no board answers at any port ({asked}); --doctor --port PORT says more")


def find(baud: int | None = None) -> list[Found]:
    """Return what is at each serial port of this machine, in the order of their names.

    Takes five seconds where something does not answer, never more than LIMIT.
    """
    ports = listed()
    answers: dict[str, Answer] = {}

    def ask(port: str) -> None:
        answers[port] = asked(port, baud or BAUD, times=TIMES)

    threads = [
        threading.Thread(target=ask, args=(port,), name=f"ask {port}", daemon=True)
        for port, description in ports
        if not UNLIKELY.search(f"{port} {description}")
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LIMIT
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [_found(port, description, answers.get(port)) for port, description in ports]


def listed() -> list[tuple[str, str]]:
    """Return name and description of each serial port of this machine."""
    return [(port.device, port.description) for port in sorted(list_ports.comports())]


def _found(port: str, description: str, answer: Answer | None) -> Found:
    if UNLIKELY.search(f"{port} {description}"):
        return Found(port, description, wrong="Bluetooth, not asked")
    if answer is None:
        return Found(port, description, wrong=f"no answer within {LIMIT:.0f} s, not even an error")
    if answer.hello is not None:
        return Found(port, description, answer.hello)
    wrong = " ".join(answer.verdict.seen.removeprefix(f"{port}: ").split())
    return Found(port, description, wrong=wrong)
