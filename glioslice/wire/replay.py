"""A recording as a port: at its far end a board that says again what the recorded one said.

    port = Replay(path)                         # at the pace of the recording
    port = Replay(path, at_once=True)

A session has random numbers that no other session takes, so what is played are the messages, in
their order and grouped in sessions as they were, over a link of today. What the host sends is not
looked at: it says its hello and sends no slice.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from glioslice.errors import GliosliceError
from glioslice.wire.capture import Kind, records
from glioslice.wire.connection import Connection
from glioslice.wire.link import LinkError
from glioslice.wire.messages import End, Error, ErrorCode, HostHello, MessageError, Volume, parse
from glioslice.wire.sniffer import Tap
from glioslice.wire.transport import PortError, pair


@dataclass
class Recorded:
    """One session of a recording: the board's messages with the seconds when each was complete."""

    said: list[tuple[float, bytes]] = field(default_factory=list)
    choice: HostHello | None = None

    @property
    def complete(self) -> bool:
        """Whether the board brought a run to its end, or said why not."""
        try:
            last = parse(self.said[-1][1])
        except MessageError:
            return False
        return isinstance(last, End) or (isinstance(last, Error) and last.index < 0)


@dataclass
class Script:
    """What a recording holds for a host: its sessions, and where masks of a served run belong."""

    sessions: list[Recorded] = field(default_factory=list)
    volume: Volume | None = None

    @property
    def choice(self) -> HostHello:
        """What the recorded host chose, of mode and codecs."""
        return next(one.choice for one in self.sessions if one.choice)


def read_script(path: Path) -> Script:
    """Return what the recording at `path` holds; raises GliosliceError if no run has begun in it.

    A recording that is damaged or cut short is refused.
    """
    script, tap, numbers = Script(), Tap(), {0}
    for record in records(path):
        if record.kind is Kind.VOLUME:
            script.volume = Volume.from_bytes(record.data)
        if record.kind not in (Kind.UP, Kind.DOWN):
            continue
        for seen in tap.feed(record.kind is Kind.UP, record.data, record.time):
            if seen.messages and seen.session not in numbers:
                numbers.add(seen.session)
                script.sessions.append(Recorded())
            for message in seen.messages:
                if seen.up:
                    take_choice(script.sessions[-1], message)
                else:
                    script.sessions[-1].said.append((seen.time, message))
    script.sessions = [one for one in script.sessions if one.said]
    if not any(one.choice for one in script.sessions):
        raise GliosliceError(
            f"{path}: no host and board came to an agreement in this recording, there is nothing "
            f"to replay; glioslice dump {path} shows what happened"
        )
    return script


def take_choice(session: Recorded, message: bytes) -> None:
    """Note the host's choice if this is it; one that the board refused is followed by another."""
    if message[0] == HostHello.TYPE:
        session.choice = HostHello.from_bytes(message)


class Replay:
    """The near end of a line whose far end plays a recording. `script` is what it plays."""

    def __init__(self, path: Path, *, at_once: bool = False) -> None:
        self.script = read_script(path)
        self.at_once = at_once
        self._near, far = pair()
        self.name = str(path)
        self._board = Connection(far, active=False)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._play, name="wire-replay", daemon=True)
        self._thread.start()

    def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting up to `timeout` seconds for the first byte."""
        return self._near.read(timeout)

    def write(self, data: bytes) -> None:
        """Hand `data` to the far end, which hears no more than that somebody is there."""
        self._near.write(data)

    def close(self) -> None:
        """End the replay; twice does no harm."""
        self._closed.set()
        self._near.close()
        self._thread.join()
        self._board.close()

    def _play(self) -> None:
        try:
            for number, session in enumerate(self.script.sessions):
                self._board.open()
                self._tell(session)
                if number + 1 < len(self.script.sessions):
                    self._board.flush()
            if not session.complete:
                ends = Error(ErrorCode.STOPPED, -1, "the recording ends here")
                self._board.send(ends.to_bytes())
            while not self._closed.is_set():
                self._board.receive()
        except (LinkError, PortError):  # the host has gone
            pass

    def _tell(self, session: Recorded) -> None:
        for wait, message in self._paced(session):
            if wait > 0 and self._closed.wait(wait):
                return
            while self._board.receive(0) is not None:
                pass  # the host's words take up no room
            self._board.send(message)

    def _paced(self, session: Recorded) -> Iterator[tuple[float, bytes]]:
        """Yield each message and the seconds since the one before."""
        before = session.said[0][0]
        for at, message in session.said:
            yield (0.0 if self.at_once else at - before), message
            before = at
