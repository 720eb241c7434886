"""Share many cases among processes: by parts of a list, or through a Dask scheduler.

    in_part("BraTS_0042", parse_part("3/16"))       # the same answer on every machine
    for result in map_on_dask(function, items, "tcp://scheduler:8786"): ...

A part is decided by a hash of the case's name alone, so it does not change when cases are added and
no process needs to know of the others.
"""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any, TypeVar

from glioslice.errors import GliosliceError

logger = logging.getLogger(__name__)

LOCAL = "local"
"""Stands for a cluster on this machine, with one process per core."""

RETRIES = 3
"""How often a task is repeated whose function raised; lost workers are counted by the scheduler."""

CONNECT_TIMEOUT = 15
"""Seconds to wait for a scheduler."""

BATCH = 1000
"""Tasks that are submitted at a time: a list of 100,000 would sit in the scheduler's memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Part:
    """Part `number` (from 1) of `count`."""

    number: int
    count: int


def parse_part(text: str) -> Part:
    """Return the part that K/N means, for argparse."""
    number, slash, count = text.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return Part(int(number), int(count))
    raise argparse.ArgumentTypeError(f"'{text}' is not a part such as 3/16, from 1/16 to 16/16")


def in_part(name: str, part: Part) -> bool:
    """Return whether the case `name` belongs to a part; each belongs to exactly one."""
    hashed = int.from_bytes(sha256(name.encode()).digest()[:8], "big")
    return hashed % part.count == part.number - 1


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add --part and --dask, which exclude each other."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--part", type=parse_part, metavar="K/N", help="only part K of N, by a hash of the name"
    )
    group.add_argument(
        "--dask", nargs="?", const=LOCAL, metavar="SCHEDULER",
        help="share the cases among the workers of a Dask cluster, such as tcp://host:8786; "
        "without an address one process per core of this machine",
    )  # fmt: skip


def map_on_dask(
    function: Callable[[Item], Result], items: Sequence[Item], scheduler: str
) -> Iterator[tuple[Item, Result | Exception]]:
    """Yield each item with its result, or the error that ended it, in the order of completion.

    `function` and `items` are pickled. What a lost worker was doing is done again elsewhere, so
    `function` must be safe to repeat. Raises GliosliceError if Dask is not installed, or if the
    scheduler does not reply, has no worker or is lost.
    """
    with _connect(scheduler) as client:
        from distributed import as_completed

        waiting, submitted = iter(items), dict[str, Item]()
        running: Any = as_completed()

        def submit(count: int) -> None:
            for item in islice(waiting, count):
                future = client.submit(function, item, pure=False, retries=RETRIES)
                submitted[future.key] = item
                running.add(future)

        submit(BATCH)
        for future in running:
            if future.cancelled():
                raise GliosliceError(f"{scheduler}: the scheduler is lost; run it again to go on")
            error = future.exception()
            yield submitted.pop(future.key), future.result() if error is None else error
            future.release()
            submit(1)


@contextmanager
def _connect(scheduler: str) -> Iterator[Any]:
    """Yield a client of a scheduler that has a worker."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise GliosliceError(
            "--dask needs a package that is not installed: pip install 'glioslice[cluster]'"
        ) from None
    for name in ("distributed", "tornado"):  # a lost worker is no news
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        try:
            address: Any = scheduler
            if scheduler == LOCAL:
                address = stack.enter_context(
                    LocalCluster(
                        threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
                    )
                )
            client = stack.enter_context(Client(address, timeout=CONNECT_TIMEOUT))
        except (OSError, ValueError) as error:
            raise GliosliceError(
                f"no Dask scheduler replies at {scheduler} ({type(error).__name__}); start one "
                "with `dask scheduler`, or leave the address out"
            ) from None
        try:
            client.wait_for_workers(1, timeout=CONNECT_TIMEOUT)
        except TimeoutError:
            raise GliosliceError(
                f"{scheduler}: the scheduler has no worker; start one: dask worker {scheduler}"
            ) from None
        logger.info("%s: %d workers", scheduler, len(client.scheduler_info()["workers"]))
        yield client
