"""A session in lines for people: one for each frame, and at the end what they come to.

Print a session for people: a recording, or a line on which others talk.

    glioslice dump session.rec
    glioslice dump /dev/ttyUSB1 --baud 921600     # until Ctrl-C; nothing is written to it

Where both directions of a line are wired to one receiver, both are told apart.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Iterator
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
    parse,
)
from glioslice.wire.packets import PROPOSE, Ack, Close, Data, Open, Packet, Probe, Rate
from glioslice.wire.ports import open_port
from glioslice.wire.sniffer import Seen, Tap, Totals
from glioslice.wire.transport import PortError

HEAD = "   seconds   bytes  from    what"
FROM = {True: "host ", False: "board", None: "     "}


class Printer:
    """Turns a session into lines, as it goes; `closing` says what it came to."""

    def __init__(self) -> None:
        self._tap = Tap()
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
                yield line(record.time, None, None, f"the host's port is set to {baud} baud")
            case Kind.LINE:
                what = "the line is back" if record.data[0] else "the line is lost"
                yield line(record.time, None, None, what)
            case _:
                what = "where the masks belong, as the host knows it"
                yield line(record.time, None, None, what)

    def bytes(self, up: bool | None, data: bytes, time: float) -> Iterator[str]:
        """Yield a line for each frame, or run of bytes that are none, which `data` completes."""
        self._seconds = time
        for seen in self._tap.feed(up, data, time):
            self._totals[seen.up].add(seen)
            kinds = [kind_of(message) for message in seen.messages]
            self._messages.update((seen.up, kind) for kind in kinds)
            yield line(time, seen.up, seen.size, what_of(seen))

    def closing(self) -> Iterator[str]:
        """Yield the summary."""
        yield f"{self._seconds:.3f} s, {self._tap.session} sessions"
        for up, name in ((True, "host to board"), (False, "board to host")):
            one = self._totals[up]
            kinds = [f"{n} {kind}" for (way, kind), n in self._messages.items() if way is up]
            yield (
                f"{name}: {one.bytes:,} bytes in {one.frames:,} frames, {one.payload:,} of "
                f"messages, {one.again:,} repeated, {one.skipped:,} skipped; "
                f"{', '.join(kinds) or 'no message'}"
            )
        if self._tap.unfinished:
            yield f"{self._tap.unfinished:,} bytes at the end belong to no frame"


def printed(record: Iterable[Record]) -> Iterator[str]:
    """Yield a recording line by line, then the summary, which comes also before an error."""
    printer = Printer()
    yield HEAD
    try:
        for one in record:
            yield from printer.record(one)
    except Exception:
        yield from printer.closing()
        raise
    yield from printer.closing()


def line(time: float, up: bool | None, size: int | None, what: str) -> str:
    """Return a line; `up` is None for what the host did itself."""
    return f"{time:10.6f}  {'' if size is None else size:>6}  {FROM[up]}  {what}"


def what_of(seen: Seen) -> str:
    """Return what a frame is, or what was skipped."""
    if seen.packet is None:
        text = seen.text.decode("ascii", "replace")
        shown = "".join(c if c.isascii() and c.isprintable() else "." for c in text[-48:])
        return f"skipped: {shown}"
    if seen.echo:
        return f"skipped: an echo of {packet_text(seen.packet)}"
    words = [packet_text(seen.packet)]
    if seen.again:
        words.append(f"{seen.again} bytes again")
    if seen.late:
        words.append("late")
    return "; ".join([", ".join(words), *(message_text(one) for one in seen.messages)])


def packet_text(packet: Packet) -> str:
    """Return what a packet says."""
    match packet:
        case Open(session, peer, payload, window, rates, version):
            known = f" to {peer:08x}" if peer else ""
            return (
                f"OPEN {session:08x}{known}, version {version}, frames of {payload}, window "
                f"{window}, {rates.bit_count()} rates"
            )
        case Data(_, offset, acknowledged, payload):
            return f"DATA {len(payload)} from {offset}, has {acknowledged}"
        case Ack(_, acknowledged, edge, pairs):
            missing = sum(gap for gap, _ in pairs)
            lacks = f", lacks {missing} in {len(pairs)} gaps" if pairs else ""
            return f"ACK has {acknowledged}, takes up to {edge}{lacks}"
        case Close():
            return "CLOSE"
        case Rate(_, step, rate, _):
            return f"RATE {'propose' if step == PROPOSE else 'accept'} {rate} baud"
        case Probe(_, number, _):
            return f"PROBE {number}"


def kind_of(message: bytes) -> str:
    """Return the name of a message's type."""
    try:
        return type(parse(message)).__name__
    except MessageError:
        return "not understood"


def message_text(data: bytes) -> str:
    """Return what a message says."""
    try:
        message = parse(data)
    except MessageError as error:
        return f"a message of {len(data)} bytes that is not understood: {error}"
    return f"{type(message).__name__} {said(message)}".rstrip() + f" ({len(data)} bytes)"


def said(message: Message) -> str:
    """Return what a message says beside its type."""
    match message:
        case BoardHello(modes=modes, window=window, model=model):
            names = " and ".join(sorted(mode.name.lower() for mode in modes))
            return f"of {model}, {window[0]} x {window[1]}, can {names}"
        case HostHello(mode, image, mask):
            return f"{mode.name.lower()}, image codec {image}, mask codec {mask}"
        case Start(slices, volume, first):
            return f"of {slices} slices from {first}" + (" with a volume" if volume else "")
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


WAIT = 0.5
"""Seconds of one look at a port."""


def main() -> None:
    """Do what the command line says."""
    parser = cli.parser(
        "Print a recorded session, or one that crosses a line now, a line a frame.",
        "glioslice dump session.rec",
    )
    parser.prog = "glioslice dump"
    parser.add_argument("what", metavar="FILE-or-PORT", help="of stream.py --record, or a port")
    parser.add_argument("--baud", type=int, help="of the port; default: 115200")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Print the file, or listen at the port."""
    path = Path(arguments.what)
    if path.is_file():
        for line in printed(records(path)):
            print(line)
    else:
        listen(arguments.what, arguments.baud)


def listen(name: str, baud: int | None) -> None:
    """Print what others say on a port until Ctrl-C, or until the line is lost; writes nothing."""
    try:
        port = open_port(name, baud)
    except PortError as error:
        if error.reason == "missing" and "://" not in name:
            raise GliosliceError(f"{name}: there is no such recording and no such port") from None
        raise
    printer, began = Printer(), time.monotonic()
    print(HEAD, flush=True)
    try:
        while True:
            data = port.read(WAIT)
            for line in printer.bytes(None, data, time.monotonic() - began):
                print(line, flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        port.close()
        for line in printer.closing():
            print(line)


if __name__ == "__main__":
    main()
