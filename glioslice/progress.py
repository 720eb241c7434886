"""Progress of long work: a bar on a terminal where rich is installed, plain lines elsewhere."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

PLAIN_LINES = 4
"""How often a log without a terminal hears of it."""


def track(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield `items`, telling on stderr how many are done."""
    if sys.stderr.isatty():
        try:
            from rich.console import Console
            from rich.progress import track as bar
        except ImportError:  # a board does without
            pass
        else:
            yield from bar(items, what, console=Console(stderr=True))
            return
    every = max(1, len(items) // PLAIN_LINES)
    for done, item in enumerate(items, 1):
        yield item
        if done % every == 0 or done == len(items):
            print(f"{what}: {done} of {len(items)}", file=sys.stderr, flush=True)
