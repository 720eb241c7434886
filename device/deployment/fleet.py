"""Deploy to several boards at once: a line when each is finished, then a table of all."""

import logging
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from device.deployment.payload import Payload, make_payload
from device.deployment.steps import Action, Deployment, deploy_board
from glioslice.cli import one_line
from glioslice.errors import GliosliceError

logger = logging.getLogger(__name__)

AT_ONCE = 16
"""Boards that are deployed at a time: each waits for its network and its own processor."""

FAILED = "failed"


@dataclass(frozen=True)
class FleetRow:
    """What became of a board; `note` is its error, or what it is."""

    board: str
    host: str
    result: str
    seconds: float
    note: str


@dataclass
class PayloadCache:
    """Makes each payload once, however many boards need it."""

    _made: dict[tuple[object, ...], Payload] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self, model: Path, machine: str, python: tuple[int, int], runtime: str) -> Payload:
        """Return `make_payload` of the same arguments."""
        key = (model, machine, python, runtime)
        with self._lock:  # pip writes to folders that all boards share
            if key not in self._made:
                self._made[key] = make_payload(model, machine, python, runtime)
            return self._made[key]


def deploy_fleet(deployments: Sequence[Deployment], action: Action) -> None:
    """Do `action` on all boards; one that fails stops no other.

    Raises GliosliceError at the end if any failed.
    """
    payloads = PayloadCache()
    rows: dict[str, FleetRow] = {}
    with ThreadPoolExecutor(AT_ONCE, "deploy") as pool:
        futures = [pool.submit(_deploy_one, one, action, payloads) for one in deployments]
        for future in as_completed(futures):
            row = future.result()
            rows[row.board] = row
            stream = sys.stderr if row.result == FAILED else sys.stdout
            print(f"{row.board}: {row.result}: {row.note}", file=stream, flush=True)
    print("\n".join(format_fleet([rows[one.name] for one in deployments])))
    failed = sum(row.result == FAILED for row in rows.values())
    if failed:
        raise GliosliceError(f"{failed} of {len(rows)} boards failed; the same command goes on")


def _deploy_one(deployment: Deployment, action: Action, payloads: PayloadCache) -> FleetRow:
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line.strip())
        logger.info("%s: %s", deployment.name, line)

    host, started = deployment.board.target, time.monotonic()
    try:
        result = deploy_board(deployment, action, show, payloads.make).value
        note = lines[0].removeprefix(f"{host}: ")
    except (GliosliceError, OSError) as error:
        fatal = [line for line in lines if line.startswith("must change")]
        result, note = FAILED, "; ".join(fatal) or one_line(error)
    return FleetRow(deployment.name, host, result, time.monotonic() - started, note)


def format_fleet(rows: Sequence[FleetRow]) -> list[str]:
    """Return the lines of the table of all boards."""
    table = [("board", "host", "result", "s")]
    table += [(row.board, row.host, row.result, f"{row.seconds:.0f}") for row in rows]
    widths = [max(len(line[place]) for line in table) for place in range(4)]
    lines = ("  ".join(f"{c:{w}}" for c, w in zip(line, widths, strict=True)) for line in table)
    return [line.rstrip() for line in lines]
