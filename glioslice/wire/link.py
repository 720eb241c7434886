"""What a link is told, where it stands and what it has counted.

What crosses while a session is open: pieces of both streams, acknowledgements, baud rates.

A flow decides which packet leaves next and when; who its peer is and whether the session stands is
for `link`. Like it, it has no threads and no clock.

Frames to a reliable ordered stream of messages, in both directions, without threads or a clock.

Bytes and the time go in, bytes come out: `connection` runs a link over a port, tests run it in
virtual time. A link is one session between an active end, which calls, and a passive end, which
answers and says nothing before it is called. `State` lists where it can stand.
"""

import math
import secrets
from dataclasses import asdict, dataclass
from enum import Enum

from glioslice.wire import packets
from glioslice.wire.baud_negotiation import BASE, Tuner, offered
from glioslice.wire.framing import FrameCounts, FrameReader, encode
from glioslice.wire.packets import (
    Ack,
    Close,
    Data,
    LinkError,
    Open,
    Packet,
    PacketError,
    Probe,
    Rate,
    expand,
)
from glioslice.wire.receiver import MAX_MESSAGE, Receiver, StreamError
from glioslice.wire.sender import Sender


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


KEEP_ALIVE = 1.0
ACK_DELAY = 0.02
"""Seconds that an acknowledgement waits for data to travel with."""

ACK_BYTES = 4096
"""Bytes that may arrive before an acknowledgement leaves without waiting."""


class Flow:
    """One end of what crosses; `sender`, `receiver` and `tuner` do the work."""

    def __init__(self, settings: Settings, active: bool) -> None:
        self.sender = Sender(settings.payload)
        self.receiver = Receiver(settings.window)
        self.tuner = Tuner(active, settings.rates)
        self._window = settings.window
        self._rates = 0
        self._ack_at = math.inf
        self._acknowledged = 0
        self._edge = 0

    def meet(self, peer: Open) -> None:
        """Take in what a peer offers that calls or answers."""
        self.sender.limit(peer.payload)
        self.sender.edge = peer.window
        self._edge = self._window
        self._rates = peer.rates

    def opened(self, trip: float, now: float) -> None:
        """Begin, now that both ends know each other; `trip` is a round trip."""
        self.acknowledge(now)
        self.tuner.opened(self._rates, trip, now)

    def acknowledge(self, now: float) -> None:
        """Let an acknowledgement leave now."""
        self._ack_at = now

    def next_message(self, now: float) -> bytes | None:
        """Return the next message that has arrived, None if there is none."""
        message = self.receiver.next_message()
        if message is not None and self._edge_moved:
            self._ack_at = min(self._ack_at, now)
        return message

    def next_time(self, heard_at: float, sent_at: float) -> float:
        """Return when `next_packet` has to be called if nothing arrives."""
        tuner = self.tuner
        rates = tuner.next_time(self.sender.idle, heard_at)
        if tuner.silent:
            return rates
        if self.sender.ready(tuner.holding) or tuner.announcements:
            return -math.inf
        return min(rates, self.sender.next_time(), self._ack_at, sent_at + KEEP_ALIVE)

    def next_packet(
        self, tag: int, heard: FrameCounts, heard_at: float, sent_at: float, now: float
    ) -> Data | Ack | Rate | Probe | None:
        """Return what leaves now, None if nothing has to; it may have changed the rate.

        `heard` counts the frames that came, the last good one of them at `heard_at`.
        """
        about_rates = self._next_about_rates(tag, heard, heard_at, now)
        tuner = self.tuner
        if about_rates is not None or tuner.silent:
            return about_rates
        if tuner.announcements:
            tuner.announcements -= 1
            return self._ack(tag)
        self.sender.check_time(now)
        due = now >= min(self._ack_at, sent_at + KEEP_ALIVE)
        ready = self.sender.ready(tuner.holding)
        if self._edge_moved or (due and (self.receiver.gap or not ready)):
            return self._ack(tag)
        segment = self.sender.next_segment(now) if ready else None
        if segment is None:
            return None
        if not self.receiver.gap:
            self._ack_at = math.inf
        self._acknowledged = self.receiver.expected
        return Data(tag, segment[0], self._acknowledged, segment[1])

    def _next_about_rates(
        self, tag: int, heard: FrameCounts, heard_at: float, now: float
    ) -> Rate | Probe | None:
        tuner, sender = self.tuner, self.sender
        tuner.tick(now, heard_at)
        tuner.weigh(sender.lost, sender.arrived, heard.bad, heard.frames, now)
        return tuner.next_packet(tag, sender.idle, now)

    @property
    def _edge_moved(self) -> bool:
        """Whether the peer may send much more than it has been told: only ACK says so."""
        return self.receiver.edge - self._edge >= self._window // 4

    def _ack(self, tag: int) -> Ack:
        receiver = self.receiver
        self._ack_at = math.inf
        self._acknowledged, self._edge = receiver.expected, receiver.edge
        return Ack(tag, receiver.expected, receiver.edge, receiver.pairs())

    def receive(self, packet: Data | Ack | Rate | Probe, now: float) -> None:
        """Take in a packet of the session; raises StreamError for a stream without messages."""
        sender = self.sender
        if isinstance(packet, Rate | Probe):
            self.tuner.heard(packet, now)
            return
        self.tuner.heard(None, now)
        upto = expand(packet.acknowledged, sender.base)
        if isinstance(packet, Data):
            sender.acknowledge(upto, [], False, now)
            self._receive_data(packet, now)
            return
        runs, at = [], upto
        for gap, run in packet.pairs:
            runs.append((at + gap, at + gap + run))
            at += gap + run
        sender.edge = max(sender.edge, expand(packet.edge, sender.base))
        sender.acknowledge(upto, runs, len(packet.pairs) < packets.MAX_PAIRS, now)

    def _receive_data(self, packet: Data, now: float) -> None:
        receiver = self.receiver
        urgent = receiver.add(expand(packet.offset, receiver.expected), packet.payload)
        if urgent or receiver.expected - self._acknowledged >= ACK_BYTES:
            self._ack_at = min(self._ack_at, now)
        else:
            self._ack_at = min(self._ack_at, now + ACK_DELAY)


__all__ = ["MAX_MESSAGE", "Counts", "Link", "LinkError", "Settings", "State"]

CALL_INTERVAL = 0.25
GOODBYES = 3
"""CLOSE is not acknowledged; three copies leave."""


class Link:
    """One end of one session.

    Messages leave through `sender` and arrive at `flow.next_message`.
    """

    def __init__(
        self, settings: Settings | None = None, *, active: bool, session: int | None = None
    ) -> None:
        self.settings = settings or Settings()
        self.active = active
        self.session = session or secrets.randbelow(0xFFFFFFFF) + 1
        self.state = State.OPENING
        self.refusal = ""
        self.heard_at = -math.inf
        self.reader = FrameReader()
        self._counts = Counts()
        self._peer = 0
        self.flow = Flow(self.settings, active)
        self.sender = self.flow.sender
        self._call_at = 0.0 if active else math.inf
        self._called_at = -math.inf
        self._sent_at = -math.inf
        self._goodbyes = 0

    @property
    def counts(self) -> Counts:
        """What has happened so far, as a copy."""
        frames, sender = self.reader.counts, self.sender
        return Counts(
            **{
                **asdict(self._counts),
                "bytes_received": frames.bytes,
                "frames_received": frames.frames,
                "skipped": frames.skipped,
                "bad_frames": frames.bad,
                "retransmits": sender.retransmits,
                "repeated_bytes": sender.repeated_bytes,
                "duplicates": self.flow.receiver.duplicates,
            }
        )

    @property
    def rate(self) -> int | None:
        """The baud rate that the port is to have from now on; None: the one it has."""
        if not self.settings.rates:
            return None
        lives = self.state in (State.OPENING, State.OPEN) or self._goodbyes
        return self.flow.tuner.rate if lives else BASE

    @property
    def buffered(self) -> int:
        """Bytes of received data held at this moment."""
        return self.flow.receiver.buffered + self.reader.buffered

    def close(self) -> None:
        """Say goodbye: what is queued is dropped, `outgoing` still returns the farewell."""
        if self.state is State.OPEN:
            self._goodbyes = GOODBYES
        self.state = State.CLOSED

    def receive_bytes(self, data: bytes, now: float) -> bool:
        """Take bytes from the line; return whether a good packet was among them."""
        good = False
        for body in self.reader.feed(data):
            try:
                packet, active = packets.from_bytes(body)
            except PacketError:
                self._counts.bad_packets += 1
                continue
            if active == self.active:
                self._counts.echoes += 1
                continue
            self._receive(packet, now)
            good = True
        return good

    def outgoing(self, now: float) -> bytes:
        """Return the next bytes for the line, b"" if nothing has to leave now."""
        packet = self._next_packet(now)
        if packet is None:
            return b""
        frame = encode(packets.to_bytes(packet, self.active))
        self._counts.frames_sent += 1
        self._counts.bytes_sent += len(frame)
        self._sent_at = now
        return frame

    def next_time(self) -> float:
        """Return when `outgoing` has to be called if nothing arrives; infinity for never."""
        if self.state is State.OPENING:
            return self._call_at
        if self._goodbyes:
            return -math.inf
        if self.state is not State.OPEN:
            return math.inf
        due = self.flow.next_time(self.heard_at, self._sent_at)
        return due if self.flow.tuner.silent else min(due, self._call_at)

    def _next_packet(self, now: float) -> Packet | None:
        if self._goodbyes:
            self._goodbyes -= 1
            return Close(self._tag)
        if self.state in (State.OPENING, State.OPEN) and now >= self._call_at:
            return self._call(now)
        if self.state is not State.OPEN:
            return None
        heard = self.reader.counts
        return self.flow.next_packet(self._tag, heard, self.heard_at, self._sent_at, now)

    @property
    def _tag(self) -> int:
        return (self.session ^ self._peer) & 0xFFFF

    def _call(self, now: float) -> Open:
        calling = self.state is State.OPENING and (self.active or self._peer)
        self._call_at = now + CALL_INTERVAL if calling else math.inf
        self._called_at = now
        own = self.settings
        return Open(self.session, self._peer, own.payload, own.window, offered(own.rates))

    def _answer(self, now: float) -> None:
        """Let an OPEN leave soon, but never more than four a second."""
        self._call_at = min(self._call_at, max(now, self._called_at + CALL_INTERVAL))

    def _receive(self, packet: Packet, now: float) -> None:
        if self.state not in (State.OPENING, State.OPEN):
            return
        if isinstance(packet, Open):
            self.heard_at = now
            self._receive_open(packet, now)
        elif packet.tag != self._tag or not self._peer:
            self._counts.strangers += 1
            if self.state is State.OPENING and not (self.active or isinstance(packet, Close)):
                self._answer(now)  # a peer that still talks to our predecessor
        else:
            self.heard_at = now
            self._opened(now)
            self._receive_tagged(packet, now)

    def _receive_open(self, packet: Open, now: float) -> None:
        if packet.version != packets.VERSION:
            if self.active:
                self._refuse(
                    f"the board speaks version {packet.version} of the link, this side version "
                    f"{packets.VERSION}; install the same version of glioslice on both"
                )
            else:
                self._answer(now)  # so that the host can say so
            return
        if self.state is State.OPEN and packet.session != self._peer:
            self.state = State.RESTARTED
            return
        if packet.session != self._peer:
            self._peer = packet.session
            self.flow.meet(packet)
        if packet.peer == self.session:
            self._opened(now)
            self.flow.acknowledge(now)
        elif self.state is State.OPENING:
            self._call_at = now
        else:
            self._answer(now)

    def _opened(self, now: float) -> None:
        if self.state is State.OPENING:
            self.state = State.OPEN
            self._call_at = math.inf
            self.flow.opened(now - self._called_at, now)

    def _receive_tagged(self, packet: Data | Ack | Close | Rate | Probe, now: float) -> None:
        if isinstance(packet, Close):
            self.state = State.CLOSED
            return
        try:
            self.flow.receive(packet, now)
        except StreamError as error:
            self._refuse(str(error))

    def _refuse(self, why: str) -> None:
        self.refusal = why
        self.state = State.REFUSED
