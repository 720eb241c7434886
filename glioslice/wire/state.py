"""What a link is told, where it stands and what it has counted."""

from dataclasses import asdict, dataclass
from enum import Enum

from glioslice.errors import GliosliceError
from glioslice.wire import packets


class LinkError(GliosliceError):
    """The link cannot go on; the message says why."""


class State(Enum):
    """Where a session stands.

    OPENING    no session yet: the active end sends OPEN four times a second
    OPEN       messages flow; each end sends something at least once a second
    RESTARTED  the peer has begun a new session: this one is dead; what has arrived can be taken
    CLOSED     one of the ends has said goodbye
    REFUSED    the peer speaks another version, or its stream holds no messages
    """

    OPENING = "opening"
    OPEN = "open"
    RESTARTED = "restarted"
    CLOSED = "closed"
    REFUSED = "refused"


@dataclass(frozen=True)
class Settings:
    """What an end offers: bytes of payload in its largest frame, and of the window it holds.

    `rates` are the baud rates that its port can change to; none: it keeps the one it has.
    """

    payload: int = 1024
    window: int = 32768
    rates: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raise LinkError for sizes that the packets cannot say."""
        if not packets.MIN_PAYLOAD <= self.payload <= packets.MAX_PAYLOAD:
            raise LinkError(
                f"a frame carries {packets.MIN_PAYLOAD} to {packets.MAX_PAYLOAD} bytes, "
                f"not {self.payload}"
            )
        if not self.payload <= self.window <= packets.MAX_WINDOW:
            raise LinkError(
                f"a window holds {self.payload} (one frame) to {packets.MAX_WINDOW} bytes, "
                f"not {self.window}"
            )


@dataclass
class Counts:
    """What a link has done. Bytes are those on the line; `skipped` ones belonged to no frame."""

    bytes_sent: int = 0
    bytes_received: int = 0
    frames_sent: int = 0
    frames_received: int = 0
    retransmits: int = 0
    repeated_bytes: int = 0
    duplicates: int = 0
    skipped: int = 0
    bad_frames: int = 0
    bad_packets: int = 0
    strangers: int = 0
    echoes: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return the sums of both."""
        theirs = asdict(other)
        return Counts(**{name: value + theirs[name] for name, value in asdict(self).items()})
