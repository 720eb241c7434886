"""Progress of long work: a bar on a terminal where rich is installed, plain lines elsewhere."""

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TypeVar

Item = TypeVar("Item")

PLAIN_LINES = 4
"""How often a log without a terminal hears of it."""


def drawable() -> bool:
    """Tell whether stderr is a terminal, and rich is here to draw on it; a board does without."""
    return sys.stderr.isatty() and find_spec("rich") is not None


def due(before: int, done: int, total: int) -> bool:
    """Tell whether a log without a terminal is to hear that `done` of `total` are done.

    `before` is how many were done when this was last asked.
    """
    every = max(1, total // PLAIN_LINES)
    return done // every != before // every or (done == total != before)


def track(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield `items`, telling on stderr how many are done."""
    if drawable():
        from rich.console import Console
        from rich.progress import track as bar

        yield from bar(items, what, console=Console(stderr=True))
        return
    for done, item in enumerate(items, 1):
        yield item
        if due(done - 1, done, len(items)):
            print(f"{what}: {done} of {len(items)}", file=sys.stderr, flush=True)
