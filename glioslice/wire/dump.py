"""Print a recorded session, or one that crosses a serial link now, one line per frame.

    glioslice dump session.rec
    glioslice dump /dev/ttyUSB1 --baud 921600     # until Ctrl-C; nothing is written to the port

If both directions of a link are wired to one receiver, the output distinguishes them.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.wire.capture import Kind, Record, records
from glioslice.wire.messages import (
    BoardHello,
    Empty,
    End,
    Error,
    HostHello,
    Mask,
    Message,
    MessageError,
    Slice,
    Start,
    Temperature,
    parse,
)
from glioslice.wire.packets import describe_packet
from glioslice.wire.ports import open_port
from glioslice.wire.sniffer import SniffedFrame, Sniffer, Totals
from glioslice.wire.transport import PortError

HEAD = "   seconds   bytes  from    what"
SENDER = {True: "host ", False: "board", None: "     "}

WAIT = 0.5
"""Seconds of one read of a port."""


class Formatter:
    """Turns a session into lines of text; `summary` adds it up."""

    def __init__(self) -> None:
        self._sniffer = Sniffer()
        self._totals = {True: Totals(), False: Totals()}
        self._messages: Counter[tuple[bool, str]] = Counter()
        self._seconds = 0.0

    def record(self, record: Record) -> Iterator[str]:
        """Yield the lines of a record."""
        self._seconds = record.time
        match record.kind:
            case Kind.UP | Kind.DOWN:
                yield from self.bytes(record.kind is Kind.UP, record.data, record.time)
            case Kind.RATE:
                baud = int.from_bytes(record.data, "little")
                yield format_line(record.time, None, None, f"the host's port is set to {baud} baud")
            case Kind.LINE:
                what = "the line is back" if record.data[0] else "the line is lost"
                yield format_line(record.time, None, None, what)
            case _:
                what = "where the masks belong, recorded by the host"
                yield format_line(record.time, None, None, what)

    def bytes(self, up: bool | None, data: bytes, time: float) -> Iterator[str]:
        """Yield a line for each frame, or run of skipped bytes, which `data` completes."""
        self._seconds = time
        for frame in self._sniffer.feed(up, data, time):
            self._totals[frame.up].add(frame)
            self._messages.update((frame.up, kind_of(message)) for message in frame.messages)
            yield format_line(time, frame.up, frame.size, describe_frame(frame))

    def summary(self) -> Iterator[str]:
        """Yield the summary."""
        yield f"{self._seconds:.3f} s, {self._sniffer.session} sessions"
        for up, name in ((True, "host to board"), (False, "board to host")):
            totals = self._totals[up]
            kinds = [f"{n} {kind}" for (way, kind), n in self._messages.items() if way is up]
            yield (
                f"{name}: {totals.bytes:,} bytes in {totals.frames:,} frames, {totals.payload:,} "
                f"of messages, {totals.repeated:,} repeated, {totals.skipped:,} skipped; "
                f"{', '.join(kinds) or 'no message'}"
            )
        if self._sniffer.unfinished:
            yield f"{self._sniffer.unfinished:,} bytes at the end belong to no frame"


def format_recording(recording: Iterable[Record]) -> Iterator[str]:
    """Yield a recording line by line, then the summary, which also comes before an error."""
    formatter, rest = Formatter(), iter(recording)
    first = next(rest, None)  # what is no recording at all fails here, before anything is printed
    yield HEAD
    try:
        for record in () if first is None else chain([first], rest):
            yield from formatter.record(record)
    except Exception:
        yield from formatter.summary()
        raise
    yield from formatter.summary()


def format_line(time: float, up: bool | None, size: int | None, what: str) -> str:
    """Return a line; `up` is None for events at the host itself."""
    return f"{time:10.6f}  {'' if size is None else size:>6}  {SENDER[up]}  {what}"


def describe_frame(frame: SniffedFrame) -> str:
    """Return the content of a frame, or of skipped bytes."""
    if frame.packet is None:
        text = frame.text.decode("ascii", "replace")
        shown = "".join(c if c.isascii() and c.isprintable() else "." for c in text[-48:])
        return f"skipped: {shown}"
    if frame.echo:
        return f"skipped: an echo of {describe_packet(frame.packet)}"
    parts = [describe_packet(frame.packet)]
    if frame.repeated:
        parts.append(f"{frame.repeated} bytes repeated")
    if frame.late:
        parts.append("late")
    return "; ".join([", ".join(parts), *(describe_message(data) for data in frame.messages)])


def kind_of(message: bytes) -> str:
    """Return the name of a message's type."""
    try:
        return type(parse(message)).__name__
    except MessageError:
        return "unreadable"


def describe_message(data: bytes) -> str:
    """Return the type, fields and size of a message."""
    try:
        message = parse(data)
    except MessageError as error:
        return f"an unreadable message of {len(data)} bytes: {error}"
    fields = describe_fields(message)
    return f"{type(message).__name__} {fields}".rstrip() + f" ({len(data)} bytes)"


def describe_fields(message: Message) -> str:
    """Return the fields of a message that a reader wants to see."""
    match message:
        case BoardHello(modes=modes, window=window, model=model):
            names = " and ".join(sorted(mode.name.lower() for mode in modes))
            return f"of {model}, {window[0]} x {window[1]}, can {names}"
        case HostHello(mode, image, mask):
            return f"{mode.name.lower()}, image codec {image}, mask codec {mask}"
        case Start(slices, volume, first, absent=absent):
            text = f"of {slices} slices from {first}" + (" with a volume" if volume else "")
            return text + (f", absent channels {absent:04b}" if absent else "")
        case Slice(index, codec):
            return f"{index}, codec {codec}"
        case Mask(index, codec, device_us):
            return f"{index}, codec {codec}, {device_us / 1000:.1f} ms"
        case Empty():
            return f"{message.index} to {message.stop - 1}"
        case End(masks, failed):
            return f"after {masks} masks and {failed} failures"
        case Error(code, index, text):
            return f"{code.name.lower()}, slice {index}: {text}"
        case Temperature():
            return f"of {message.celsius:.1f} C"


def dump(arguments: argparse.Namespace) -> None:
    """Print a recording, or what crosses a port."""
    path = Path(arguments.source)
    if path.is_file():
        for line in format_recording(records(path)):
            print(line)
    else:
        dump_port(arguments.source, arguments.baud)


def dump_port(name: str, baud: int | None) -> None:
    """Print what others send on a port until Ctrl-C, or until the line is lost."""
    try:
        port = open_port(name, baud)
    except PortError as error:
        if error.reason == "missing" and "://" not in name:
            raise GliosliceError(f"{name}: there is no such recording and no such port") from None
        raise
    formatter, began = Formatter(), time.monotonic()
    print(HEAD, flush=True)
    try:
        while True:
            data = port.read(WAIT)
            for line in formatter.bytes(None, data, time.monotonic() - began):
                print(line, flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        port.close()
        for line in formatter.summary():
            print(line)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the recording or the link that the command line names."""
    parser = cli.parser(
        "Print a recorded session, or one that crosses a serial link now, one line per frame.",
        "glioslice dump session.rec",
    )
    parser.prog = "glioslice dump"
    parser.add_argument(
        "source",
        metavar="FILE-or-PORT",
        help="a recording of `glioslice stream --record`, or a port",
    )
    parser.add_argument("--baud", type=cli.positive, help="baud rate of the port; default: 115200")
    cli.run(dump, parser.parse_args(argv))


if __name__ == "__main__":
    main()
