"""Keep tools quiet: their output goes to a log, which is shown if they fail."""

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from glioslice.errors import GliosliceError

LOG_LINES = 5
"""Lines of the log that an error message quotes where the error itself gives no cause."""

COLOUR_CODES = re.compile(r"\x1b\[[0-9;]*m")
NO_CAUSE = ("Exception encountered when calling layer", "Call arguments received by")
HINTS = ("ERROR: Read this", "ERROR: Alternatively", "ERROR: If the input OP", "ERROR: Also, for")
"""What onnx2tf advises after each failure: options of its own, which glioslice does not have."""


@contextmanager
def capture_output() -> Iterator[None]:
    """Run the block with stdout and stderr captured, also those of C libraries.

    Raises GliosliceError with the last lines of the output if the block fails. The whole log is
    kept in a file that the message names.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch:
        log = Path(scratch) / "log.txt"
        try:
            with redirect_output(log):
                yield
        except (Exception, SystemExit) as error:  # onnx2tf exits on what it cannot convert
            raise GliosliceError(_describe_failure(error, log)) from error


@contextmanager
def redirect_output(log: Path) -> Iterator[None]:
    """Send what Python and C libraries print in the block to the file `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    originals = os.dup(1), os.dup(2)
    with (
        log.open("a", buffering=1) as file,
        redirect_stdout(file),
        redirect_stderr(file),
        warnings.catch_warnings(action="ignore"),
    ):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            for original, number in zip(originals, (1, 2), strict=True):
                os.dup2(original, number)
                os.close(original)


def _describe_failure(error: BaseException, log: Path) -> str:
    """Return the cause of a failure in one line, with the layer at which onnx2tf stopped."""
    text = COLOUR_CODES.sub("", log.read_text(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    with tempfile.NamedTemporaryFile(
        "w", prefix="glioslice-convert-", suffix=".log", delete=False
    ) as kept:
        kept.write("\n".join(lines))
    causes = [
        line.partition(" for '{{node")[0].strip()
        for line in str(error).splitlines()
        if line.strip() and not line.startswith(NO_CAUSE)
    ]
    layer = re.search(r"onnx_op_name: (\S+)", text)
    own = [line for line in lines if not line.startswith(HINTS)]
    if isinstance(error, SystemExit) or not causes:
        causes = [" | ".join(own[-LOG_LINES:])] if own else [repr(error)]
    where = f"the converter stops at {layer[1]}" if layer else "the conversion failed"
    return f"{where} ({type(error).__name__}): {causes[0]} (full log: {kept.name})"
