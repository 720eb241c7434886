"""A recording as a port: at its far end is a board that replays the recorded one's messages.

    port = Replay(path)                         # at the pace of the recording
    port = Replay(path, at_once=True)

A session has random numbers that no other session accepts. So the messages are replayed, in their
order and in sessions as they were, over a new link. What the host sends is ignored: it sends its
HostHello and no slices.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from glioslice.errors import GliosliceError
from glioslice.wire.capture import Kind, records
from glioslice.wire.connection import Connection
from glioslice.wire.link import LinkError
from glioslice.wire.messages import (
    End,
    Error,
    ErrorCode,
    HostHello,
    MessageError,
    Start,
    VolumeGeometry,
    parse,
)
from glioslice.wire.sniffer import Sniffer
from glioslice.wire.transport import PortError, pair


@dataclass
class RecordedSession:
    """The board's messages in a session, with the second when each was complete."""

    messages: list[tuple[float, bytes]] = field(default_factory=list)
    choice: HostHello | None = None

    @property
    def complete(self) -> bool:
        """Whether the board ended a run, or reported why it could not."""
        try:
            last = parse(self.messages[-1][1])
        except MessageError:
            return False
        return isinstance(last, End) or (isinstance(last, Error) and last.index < 0)


@dataclass
class Script:
    """What a recording holds: its sessions, and what a served run's Start and geometry tell.

    `volume` is where its masks belong, `absent` the channels that its case lacks.
    """

    sessions: list[RecordedSession] = field(default_factory=list)
    volume: VolumeGeometry | None = None
    absent: int = 0

    @property
    def choice(self) -> HostHello:
        """The recorded host's choice of mode and codecs."""
        return next(session.choice for session in self.sessions if session.choice)

    def note_sent(self, session: RecordedSession, message: bytes) -> None:
        """Note what the host chose in a session; its slices do not matter."""
        if message[0] == HostHello.TYPE:  # the last one: the board may refuse others
            session.choice = HostHello.from_bytes(message)
        elif message[0] == Start.TYPE:
            self.absent = Start.from_bytes(message).absent


def read_script(path: Path) -> Script:
    """Return what the recording at `path` holds; raises GliosliceError if no run has begun in it.

    A recording that is damaged or cut short is refused.
    """
    script, sniffer, numbers = Script(), Sniffer(), {0}
    for record in records(path):
        if record.kind is Kind.VOLUME:
            script.volume = VolumeGeometry.from_bytes(record.data)
        if record.kind not in (Kind.UP, Kind.DOWN):
            continue
        for frame in sniffer.feed(record.kind is Kind.UP, record.data, record.time):
            if frame.messages and frame.session not in numbers:
                numbers.add(frame.session)
                script.sessions.append(RecordedSession())
            for message in frame.messages:
                session = script.sessions[-1]
                if frame.up:
                    script.note_sent(session, message)
                else:
                    session.messages.append((frame.time, message))
    script.sessions = [session for session in script.sessions if session.messages]
    if not any(session.choice for session in script.sessions):
        raise GliosliceError(
            f"{path}: in this recording no host and board completed their handshake, there is "
            f"nothing to replay; `glioslice dump {path}` shows what happened"
        )
    return script


class Replay:
    """The near end of a line whose far end replays a recording. `script` is its content."""

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
        """Write `data` to the far end, which ignores the messages in it."""
        self._near.write(data)

    def close(self) -> None:
        """End the replay; calling it twice is harmless."""
        self._closed.set()
        self._near.close()
        self._thread.join()
        self._board.close()

    def _play(self) -> None:
        try:
            for number, session in enumerate(self.script.sessions):
                self._board.open()
                self._send_messages(session)
                if number + 1 < len(self.script.sessions):
                    self._board.flush()
            if not session.complete:
                ends = Error(ErrorCode.STOPPED, -1, "the recording ends here")
                self._board.send(ends.to_bytes())
            while not self._closed.is_set():
                self._board.receive()
        except (LinkError, PortError):  # the host has gone
            pass

    def _send_messages(self, session: RecordedSession) -> None:
        for wait, message in self._paced(session):
            if wait > 0 and self._closed.wait(wait):
                return
            while self._board.receive(0) is not None:
                pass  # unread messages would fill the window
            self._board.send(message)

    def _paced(self, session: RecordedSession) -> Iterator[tuple[float, bytes]]:
        """Yield each message and the seconds since the one before."""
        before = session.messages[0][0]
        for at, message in session.messages:
            yield (0.0 if self.at_once else at - before), message
            before = at
