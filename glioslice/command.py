"""What all commands share: help with an example line, one line for an error, exit code 2."""

import argparse
import sys
from collections.abc import Callable

from glioslice.errors import GliosliceError


def parser(description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser whose `--help` ends with `example` and which knows `--debug`."""
    made = argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def run(work: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    """Do `work`; a `GliosliceError` or a failed file operation ends as one line and exit code 2."""
    try:
        work(arguments)
    except (GliosliceError, OSError) as error:
        if arguments.debug:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def one_line(error: BaseException) -> str:
    """Return what `error` says, on one line: an OSError names its file and its cause."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
