"""The tools print a lot and mean little by it: a log takes it, and is shown on failure."""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from glioslice.errors import GliosliceError

LOG_LINES = 5


@contextmanager
def logged() -> Iterator[None]:
    """Run the block in silence.

    Raises GliosliceError with the last lines of what was said, which is kept, if the block fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch:
        log = Path(scratch) / "log.txt"
        try:
            with _chatter_into(log):
                yield
        except (Exception, SystemExit) as error:  # onnx2tf exits on what it cannot convert
            raise GliosliceError(_failure(error, log)) from error


@contextmanager
def _chatter_into(log: Path) -> Iterator[None]:
    """Send what Python and the libraries below it print into `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
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
            for own, number in zip(kept, (1, 2), strict=True):
                os.dup2(own, number)
                os.close(own)


def _failure(error: BaseException, log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    with tempfile.NamedTemporaryFile(
        "w", prefix="glioslice-convert-", suffix=".log", delete=False
    ) as kept:
        kept.write("\n".join(lines))
    said = " | ".join(lines[-LOG_LINES:]) or repr(error)
    return f"the conversion failed ({type(error).__name__}): {said} (the whole log: {kept.name})"
