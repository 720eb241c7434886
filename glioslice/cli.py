"""The `glioslice` command, and what every command shares: options, exit codes, logging, progress.

    glioslice segment CASE               # one program; `glioslice --help` lists its commands
    python device/segment.py CASE        # the same, from a checkout

A command is an entry point of the group `glioslice.commands`: a module whose `main()` reads
`sys.argv`. Commands whose module is not installed, as on a board, are not listed. Results go to
stdout; progress, warnings and logs go to stderr. Exit codes: 0 for success, 2 for an error (one
line on stderr), 130 after Ctrl-C. Commands that handle many slices or volumes call
`configure_malloc`.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import ast
import ctypes
import difflib
import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO, TypeVar

from glioslice import __version__, startup
from glioslice.errors import GliosliceError
from glioslice.files import NOTICE

GROUP = "glioslice.commands"
"""Entry points of the commands, in pyproject.toml."""

PACKAGES = (
    "glioslice", "device", "firmware_host", "scanner", "training", "convert", "benchmarks", "tools",
    "__main__",
)  # fmt: skip
"""Packages whose log records are shown; those of libraries are not."""

FULL = (errno.ENOSPC, errno.EDQUOT)

MAX_PORT = 65535

PLAIN_UPDATES = 4
"""Number of progress lines where stderr is not a terminal."""

Item = TypeVar("Item")

# The defaults of glibc's allocator suit neither many small slices nor a few large volumes. It
# returns the end of its heap to the system after each slice and requests it again page by page,
# which doubled the decoding time on a board. And it raises its threshold for mapped blocks up to
# 32 MB, so that a long-running host kept the memory of earlier cases.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, from malloc.h."""

TRIM_BYTES = 64 << 20
"""Free bytes at the end of the heap above which they are returned to the system."""

MMAP_BYTES = 1 << 20
"""Blocks of at least this size are mapped on their own, and unmapped when freed."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that `argv` (default: the program's arguments) names; list them if none."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = available_commands()
    if arguments and arguments[0] in commands:
        name = arguments[0]
        sys.argv = [f"glioslice {name}", *arguments[1:]]
        commands[name].load()()
        return
    top = argparse.ArgumentParser(
        prog="glioslice",
        usage="glioslice COMMAND [options]      glioslice COMMAND --help",
        description="Brain tumour segmentation in under 60,000 bytes, for boards without a GPU.",
        epilog=NOTICE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    top.add_argument("-h", "--help", action="store_true", help="show this help")
    top.add_argument("--version", action="version", version=f"glioslice {__version__}")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        listing = "\n".join(f"  {name:10} {summary_of(entry)}" for name, entry in commands.items())
        top.description = f"{top.description}\n\ncommands:\n{listing}"
        top.print_help()
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        top.parse_args(arguments[:1])
    near = difflib.get_close_matches(arguments[0], commands, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(commands)}"
    top.error(f"there is no command '{arguments[0]}'{hint}")


def available_commands() -> dict[str, EntryPoint]:
    """Return the commands whose modules are installed, by name."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    return {name: found[name] for name in sorted(found) if _source_of(found[name]) is not None}


def summary_of(entry: EntryPoint) -> str:
    """Return the first line of a command's module docstring, without importing the module."""
    source = _source_of(entry)
    text = ast.get_docstring(ast.parse(source.read_text())) if source else None
    return (text or "").split("\n")[0].rstrip(".")


def _source_of(entry: EntryPoint) -> Path | None:
    try:
        spec = find_spec(entry.module)
    except ModuleNotFoundError:  # nor is its package
        return None
    return Path(spec.origin) if spec and spec.origin else None


def parser(description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every command; `--help` ends with `example`.

    The options: --debug, -v, -vv, --log-file and --version.
    """
    result = argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}\n\n{NOTICE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--version", action="version", version=f"glioslice {__version__}")
    result.add_argument(
        "-v", "--verbose", action="count", default=0,
        help="log what happens; -vv: also each frame on the serial link",
    )  # fmt: skip
    result.add_argument("--log-file", type=Path, metavar="FILE", help="log everything to FILE")
    result.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return result


def positive(text: str) -> int:
    """Return a whole number from 1 on, as an option's `type`; argparse prints what is wrong."""
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")


def http_port(text: str) -> int:
    """Return the port of a page, 0 for any, as an option's `type`."""
    if text.isdecimal() and int(text) <= MAX_PORT:
        return int(text)
    hint = "; put CASE before --view" if not text.lstrip("-").isdecimal() else ""
    raise argparse.ArgumentTypeError(f"'{text}' is not an HTTP port, 0 to {MAX_PORT}{hint}")


def run(command: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    """Run `command`; its errors, those of files and of memory end as one line, exit code 2."""
    if sys.stderr is None:  # closed; else the next file that is opened would take its place
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        startup.end()
        escape_unprintable(sys.stdout)
        escape_unprintable(sys.stderr)
        configure_logging(arguments)
        command(arguments)
    except (GliosliceError, OSError) as error:
        if arguments.debug:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except MemoryError as error:
        if arguments.debug:
            raise
        reason = one_line(error) or "no more could be allocated"
        print(f"error: too little memory: {reason}; close other programs", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        missing = startup.missing_package(error)
        if arguments.debug or missing is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        startup.ignore_interrupts()  # `timeout -s INT` signals twice
        print("interrupted", file=sys.stderr)
        sys.exit(startup.INTERRUPTED)
    finally:
        startup.ignore_interrupts()


def escape_unprintable(stream: TextIO) -> None:
    """Print as escapes what the stream cannot encode, such as file names that are not UTF-8."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def one_line(error: BaseException) -> str:
    """Return an error's message on one line; an OSError names its file and its cause."""
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror + ("; free space there" if error.errno in FULL else "")
        return f"{error.filename}: {reason}" if error.filename else reason
    return " ".join(str(error).split())


def failure_line(error: Exception) -> str:
    """Return one line on the failure of one case of several; a defect is named as such."""
    if isinstance(error, GliosliceError | OSError):
        return one_line(error)
    return f"unexpected {type(error).__name__}: {one_line(error)}; --debug shows where"


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes log records to the current `sys.stderr`, which rich replaces during a progress bar."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(_LevelFormatter("%(message)s"))

    @property
    def stream(self) -> TextIO:
        """The current `sys.stderr`."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError("a StderrHandler always writes to stderr")


class _LevelFormatter(logging.Formatter):
    """Adds the level to warnings and errors, and the module to debug records."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno >= logging.WARNING:
            return f"{record.levelname.lower()}: {text}"
        return f"{record.name}: {text}" if record.levelno < logging.INFO else text


def configure_logging(arguments: argparse.Namespace) -> None:
    """Set up logging by the options -v, -vv, --log-file and --quiet.

    Raises OSError if the log file cannot be written.
    """
    shown = (logging.WARNING, logging.INFO, logging.DEBUG)[min(arguments.verbose, 2)]
    if getattr(arguments, "quiet", False):
        shown = logging.ERROR
    handlers: list[logging.Handler] = [StderrHandler()]
    handlers[0].setLevel(shown)
    if arguments.log_file:
        file = logging.FileHandler(
            arguments.log_file, mode="w", encoding="utf-8", errors="backslashreplace"
        )
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        file.setLevel(logging.DEBUG)
        handlers.append(file)
    reset_logging()
    for handler in handlers:
        handler.addFilter(_PackageFilter())
        logging.getLogger().addHandler(handler)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.DEBUG if arguments.log_file else shown)


def reset_logging() -> None:
    """Undo `configure_logging`: remove its handlers and levels."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if any(isinstance(one, _PackageFilter) for one in handler.filters):
            root.removeHandler(handler)
            handler.close()
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.NOTSET)


class _PackageFilter(logging.Filter):
    """Passes only records of PACKAGES."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.partition(".")[0] in PACKAGES


def drawable() -> bool:
    """Return whether stderr is a terminal and rich is installed to draw on it."""
    return sys.stderr.isatty() and find_spec("rich") is not None


def is_due(before: int, done: int, total: int) -> bool:
    """Return whether plain progress needs a line at `done` of `total` steps.

    `before` was `done` at the previous call; several steps may be done at once.
    """
    every = max(1, total // PLAIN_UPDATES)
    return done // every != before // every or (done == total != before)


def track(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield `items`, with a progress bar on a terminal and a few plain lines elsewhere."""
    if drawable():
        from rich.console import Console
        from rich.progress import Progress

        # Only a terminal's stdout is drawn with the bar: what is printed to a file stays there.
        with Progress(console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as bar:
            yield from bar.track(items, description=what)
        return
    for done, item in enumerate(items, 1):
        yield item
        if is_due(done - 1, done, len(items)):
            print(f"{what}: {done} of {len(items)}", file=sys.stderr, flush=True)


def configure_malloc() -> None:
    """Keep small blocks for the next slice, and return large blocks when they are freed.

    Does nothing where the C library has no `mallopt`.
    """
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


if __name__ == "__main__":
    main()
