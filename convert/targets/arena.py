"""How much memory TFLite Micro needs for a file.

It says how much it used, on standard error alone. While it prepares an op it may need a little
more for a moment, and where that is missing some ops crash the process: so an arena is tried in a
process of its own.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOM = 1 << 28
"""Bytes of arena to run in before it is known how many are needed."""

ALIGNMENT = 16
"""Bytes; an arena must lie at a multiple of so many."""

MOMENTARY = 1 << 14
"""Bytes, beside those it used, that are tried before a file is given up."""

TRIAL = """
import sys
import numpy
from tflite_micro.python.tflite_micro import runtime
file, values, arena = sys.argv[1:]
interpreter = runtime.Interpreter.from_file(file, arena_size=int(arena))
interpreter.set_input(numpy.load(values), 0)
interpreter.invoke()
"""


def run_micro(interpreter: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Return the output of a TFLite Micro interpreter for its one input."""
    interpreter.set_input(values, 0)
    interpreter.invoke()
    return np.array(interpreter.get_output(0))


def arena_of(content: bytes, runtime: Any, values: NDArray[Any]) -> int:
    """Return the fewest bytes, in steps of ALIGNMENT, in which TFLite Micro computes `values`.

    `runtime` is the module that has TFLite Micro's `Interpreter`. Raises RuntimeError if it does
    not run the file in any arena.
    """
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=ROOM)
    run_micro(interpreter, values)
    with _standard_error() as said:
        interpreter.print_allocations()  # `said` is filled when the block ends
    found = re.search(r"Arena allocation total (\d+) bytes", "".join(said))
    if found is None:
        raise RuntimeError(f"it did not say how large its arena is: {''.join(said)[:200]}")
    used = int(found[1])
    with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:
        file, array = Path(folder, "model.tflite"), Path(folder, "values.npy")
        file.write_bytes(content)
        np.save(array, values)

        def runs(arena: int) -> bool:
            command = [sys.executable, "-c", TRIAL, str(file), str(array), str(arena)]
            return subprocess.run(command, capture_output=True).returncode == 0

        return _fewest(runs, used)


def _fewest(runs: Callable[[int], bool], used: int) -> int:
    """Return the first of `used`, `used` + ALIGNMENT, ... that runs."""
    if runs(used):
        return used
    too_few, enough = used, used + MOMENTARY
    if not runs(enough):
        raise RuntimeError(f"it says that it used {used:,} bytes of arena, but needs far more")
    while enough - too_few > ALIGNMENT:
        middle = too_few + (enough - too_few) // (2 * ALIGNMENT) * ALIGNMENT
        too_few, enough = (too_few, middle) if runs(middle) else (middle, enough)
    return enough


@contextmanager
def _standard_error() -> Iterator[list[str]]:
    """Yield a list that holds, after the block, what was written to the standard error of C."""
    said: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
