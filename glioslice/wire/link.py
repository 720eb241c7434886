"""Frames to a reliable ordered stream of messages, in both directions, without threads or a clock.

Bytes and the time go in, bytes come out: `connection` runs a link over a port, tests run it in
virtual time. A link is one session between an active end, which requests it, and a passive end,
which sends nothing before that. `Link` opens and closes the session; `Flow` decides which packet an
open session sends next.
"""

import logging
import math
from dataclasses import asdict, dataclass, replace
from enum import Enum

from glioslice.wire import packets
from glioslice.wire.baud_negotiation import BASE, EXCLUSIVE, BaudNegotiation, Phase, offered_rates
from glioslice.wire.framing import FrameCounts, FrameReader, encode_frame
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
    describe_packet,
    expand,
)
from glioslice.wire.receiver import MAX_MESSAGE, Receiver, StreamError
from glioslice.wire.sender import Sender

__all__ = ["MAX_MESSAGE", "Counts", "Link", "LinkError", "Settings", "State"]

logger = logging.getLogger(__name__)

OPEN_INTERVAL = 0.25
KEEP_ALIVE = 1.0
"""Seconds after which an end that has sent nothing sends an ACK."""

ACK_DELAY = 0.02
"""Seconds that an acknowledgement waits for data to travel with."""

ACK_BYTES = 4096
"""Bytes that may arrive before an acknowledgement is sent without waiting, or half of a window."""

CLOSES = 3
"""CLOSE is not acknowledged; three copies are sent."""


class State(Enum):
    """The state of a session.

    OPENING    no session yet: the active end sends OPEN four times a second
    OPEN       messages flow; each end sends something at least once a second
    RESTARTED  the peer has begun a new session: this one is over; received messages can be read
    CLOSED     one of the ends has closed the session
    REFUSED    the peer uses another version, or its stream holds no messages
    """

    OPENING = "opening"
    OPEN = "open"
    RESTARTED = "restarted"
    CLOSED = "closed"
    REFUSED = "refused"


@dataclass(frozen=True)
class Settings:
    """What an end offers: the payload of its largest frame and its receive window, in bytes.

    `rates` are the baud rates that its port can change to; empty if the rate is fixed.
    """

    payload: int = 1024
    window: int = 32768
    rates: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raise LinkError for sizes that packets cannot express."""
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
    foreign_packets: int = 0
    echoes: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        """Return the sums of both."""
        theirs = asdict(other)
        return Counts(**{name: value + theirs[name] for name, value in asdict(self).items()})


class Flow:
    """One end's data transfer: which of data, acknowledgements and baud-rate packets comes next.

    Data arrives at `receiver` and leaves from `sender`.
    """

    def __init__(self, settings: Settings, active: bool) -> None:
        self.sender = Sender(settings.payload)
        self.receiver = Receiver(settings.window)
        self.negotiation = BaudNegotiation(active, settings.rates)
        self._window = settings.window
        self._peer_rates = 0
        self._ack_at = math.inf
        self._acknowledged = 0
        self._edge = 0

    def set_peer(self, peer: Open) -> None:
        """Adopt what the peer offers."""
        self.sender.limit(peer.payload)
        self.sender.edge = peer.window
        self._edge = self._window
        self._peer_rates = peer.rates

    def start(self, round_trip: float, now: float) -> None:
        """Start, now that both ends know each other."""
        self.acknowledge(now)
        self.negotiation.start(self._peer_rates, round_trip, now)

    def acknowledge(self, now: float) -> None:
        """Send an acknowledgement now."""
        self._ack_at = now

    def next_time(self, last_received: float, last_sent: float) -> float:
        """Return when `next_packet` has to be called if nothing arrives."""
        negotiation, sender, receiver = self.negotiation, self.sender, self.receiver
        negotiating = negotiation.phase is not Phase.STEADY
        rates = negotiation.next_time(negotiating and sender.idle, last_received)
        if negotiation.phase in EXCLUSIVE:
            return rates
        edge_moved = receiver.edge - self._edge >= self._window // 4
        if negotiation.announcements or edge_moved or sender.sendable(new=not negotiating):
            return -math.inf
        return min(rates, sender.next_time(), self._ack_at, last_sent + KEEP_ALIVE)

    def next_packet(
        self, tag: int, received: FrameCounts, last_received: float, last_sent: float, now: float
    ) -> Data | Ack | Rate | Probe | None:
        """Return what to send now, None if nothing is due; the baud rate may have changed.

        `received` counts the frames received, the last good one of them at `last_received`.
        """
        negotiation, sender, receiver = self.negotiation, self.sender, self.receiver
        bad = received.malformed + received.bad_crc + received.too_long
        traffic = sender.lost, sender.arrived, bad, received.frames
        negotiation.check(traffic, last_received, now)
        negotiating = negotiation.phase is not Phase.STEADY
        if negotiating:
            packet = negotiation.next_packet(tag, sender.idle, now)
            if packet is not None or negotiation.phase in EXCLUSIVE:
                return packet
        if now >= sender.next_time() and not negotiation.announcements:
            sender.time_out()
        due = now >= min(self._ack_at, last_sent + KEEP_ALIVE)
        ready = sender.sendable(new=not negotiating)
        edge_moved = receiver.edge - self._edge >= self._window // 4  # only ACK carries the edge
        if negotiation.announcements or edge_moved or (due and (receiver.runs or not ready)):
            negotiation.announcements = max(0, negotiation.announcements - 1)
            self._ack_at = math.inf
            self._acknowledged, self._edge = receiver.expected, receiver.edge
            return Ack(tag, receiver.expected, receiver.edge, receiver.pairs())
        segment = sender.next_segment(now) if ready else None
        if segment is None:
            return None
        if not receiver.runs:
            self._ack_at = math.inf
        self._acknowledged = receiver.expected
        return Data(tag, segment[0], self._acknowledged, segment[1])

    def receive(self, packet: Data | Ack | Rate | Probe, now: float) -> None:
        """Process a packet of the session; raises StreamError for a stream without messages."""
        sender, receiver = self.sender, self.receiver
        if isinstance(packet, Rate | Probe):
            self.negotiation.receive(packet, now)
            return
        self.negotiation.receive(None, now)
        upto = expand(packet.acknowledged, sender.base)
        if isinstance(packet, Ack):
            runs, at = [], upto
            for gap, run in packet.pairs:
                runs.append((at + gap, at + gap + run))
                at += gap + run
            sender.edge = max(sender.edge, expand(packet.edge, sender.base))
            sender.acknowledge(upto, runs, len(packet.pairs) < packets.MAX_PAIRS, now)
            return
        sender.acknowledge(upto, [], False, now)
        urgent = receiver.add(expand(packet.offset, receiver.expected), packet.payload)
        most = min(ACK_BYTES, self._window // 2)
        urgent = urgent or receiver.expected - self._acknowledged >= most
        self._ack_at = min(self._ack_at, now if urgent else now + ACK_DELAY)


def crossing_open(offer: Open, active: bool) -> Open:
    """Return an OPEN with as few `packets.ALTERED` values as its other fields allow.

    Its checksum may hold one, and then no repetition would ever cross a link that alters them. So a
    smaller window is offered, if necessary, which changes the checksum. The firmware chooses the
    same one.
    """
    step = min(256, offer.window // 32)
    avoided = {*packets.ALTERED} - {*packets.to_bytes(replace(offer, window=0), active)}
    best, fewest = offer, math.inf
    for window in range(offer.window, max(offer.window // 2, offer.payload - 1), -step):
        smaller = replace(offer, window=window)
        found = len(avoided & {*encode_frame(packets.to_bytes(smaller, active))})
        if found < fewest:
            best, fewest = smaller, found
        if not found:
            break
    return best


class Link:
    """One end of one session.

    Messages leave through `sender` and arrive at `receiver`. `rate` is the baud rate that the port
    is to have from now on, None for the one it has; `outgoing` may change it.
    """

    def __init__(
        self, settings: Settings | None = None, *, active: bool, session: int | None = None
    ) -> None:
        self.settings = settings or Settings()
        self.active = active
        self.session = session or packets.random_session()
        self.state = State.OPENING
        self.refusal = ""
        self.last_received = -math.inf
        self.reader = FrameReader()
        self.flow = Flow(self.settings, active)
        self.sender, self.receiver = self.flow.sender, self.flow.receiver
        self.rate = BASE if self.settings.rates else None
        self._counts = Counts()
        self._peer = self._tag = 0
        self._open_at = 0.0 if active else math.inf
        self._open_sent_at = -math.inf
        self._last_sent = -math.inf
        self._closes_left = 0
        self._log_frames = logger.isEnabledFor(logging.DEBUG)

    @property
    def counts(self) -> Counts:
        """A copy of what has happened so far."""
        frames, sender = self.reader.counts, self.sender
        return Counts(
            **{
                **asdict(self._counts),
                "bytes_received": frames.bytes,
                "frames_received": frames.frames,
                "skipped": frames.skipped,
                "bad_frames": frames.malformed + frames.bad_crc + frames.too_long,
                "retransmits": sender.retransmits,
                "repeated_bytes": sender.repeated_bytes,
                "duplicates": self.receiver.duplicates,
            }
        )

    @property
    def buffered(self) -> int:
        """Bytes of received data held."""
        return self.receiver.buffered + self.reader.buffered

    def close(self) -> None:
        """Close the session: what is queued is dropped, `outgoing` still returns the CLOSEs."""
        if self.state is State.OPEN:
            self._closes_left = CLOSES
        self.state = State.CLOSED

    def receive_bytes(self, data: bytes, now: float) -> bool:
        """Process bytes from the line; return whether a good packet was among them."""
        good = False
        for body in self.reader.feed(data):
            try:
                packet, active = packets.from_bytes(body)
            except PacketError as error:
                self._counts.bad_packets += 1
                logger.debug("%08x received no packet: %s", self.session, error)
                continue
            if self._log_frames:
                echo = "echo of " if active == self.active else ""
                logger.debug(
                    "%08x received %s%s (%d bytes)",
                    self.session, echo, describe_packet(packet), len(body),
                )  # fmt: skip
            if active == self.active:
                self._counts.echoes += 1
                continue
            good = True
            opened = self.state is State.OPEN
            try:
                if opened and not isinstance(packet, Open | Close) and packet.tag == self._tag:
                    self.last_received = now
                    self.flow.receive(packet, now)
                elif self.state in (State.OPENING, State.OPEN):
                    self._receive_control(packet, now)
            except StreamError as error:
                self._refuse(str(error))
        return good

    def outgoing(self, now: float) -> bytes:
        """Return the next bytes for the line, b"" if nothing is due now."""
        packet: Packet | None = None
        retransmits = self.sender.retransmits
        exclusive = self.flow.negotiation.phase in EXCLUSIVE
        if self._closes_left:
            self._closes_left -= 1
            packet = Close(self._tag)
        elif self.state in (State.OPENING, State.OPEN) and now >= self._open_at and not exclusive:
            packet = self._make_open(now)
        elif self.state is State.OPEN:
            packet = self.flow.next_packet(
                self._tag, self.reader.counts, self.last_received, self._last_sent, now
            )
        if self.settings.rates:
            alive = self.state in (State.OPENING, State.OPEN) or self._closes_left
            self.rate = self.flow.negotiation.rate if alive else BASE
        if packet is None:
            return b""
        body = packets.to_bytes(packet, self.active)
        frame = encode_frame(body)
        self._counts.frames_sent += 1
        self._counts.bytes_sent += len(frame)
        self._last_sent = now
        if self._log_frames:
            again = ", retransmitted" if self.sender.retransmits > retransmits else ""
            logger.debug(
                "%08x sent %s%s (%d bytes)",
                self.session, describe_packet(packet), again, len(body),
            )  # fmt: skip
        return frame

    def next_time(self) -> float:
        """Return when `outgoing` has to be called if nothing arrives; infinity for never."""
        if self.state is State.OPENING:
            return self._open_at
        if self._closes_left:
            return -math.inf
        if self.state is not State.OPEN:
            return math.inf
        due = self.flow.next_time(self.last_received, self._last_sent)
        return due if self.flow.negotiation.phase in EXCLUSIVE else min(due, self._open_at)

    def _make_open(self, now: float) -> Open:
        repeat = self.state is State.OPENING and (self.active or self._peer)
        self._open_at = now + OPEN_INTERVAL if repeat else math.inf
        self._open_sent_at = now
        own = self.settings
        rates = offered_rates(own.rates)
        offer = Open(self.session, self._peer, own.payload, own.window, rates)
        return crossing_open(offer, self.active)

    def _send_open_soon(self, now: float) -> None:
        """Reply with an OPEN, but send no more than four a second."""
        self._open_at = min(self._open_at, max(now, self._open_sent_at + OPEN_INTERVAL))

    def _receive_control(self, packet: Packet, now: float) -> None:
        """Process a packet that opens or ends the session, or that belongs to another one."""
        if isinstance(packet, Open):
            self.last_received = now
            self._receive_open(packet, now)
            return
        if packet.tag != self._tag or not self._peer:
            self._counts.foreign_packets += 1
            if self.state is State.OPENING and not (self.active or isinstance(packet, Close)):
                self._send_open_soon(now)  # the peer still uses the session before our restart
            return
        self.last_received = now
        if self.state is State.OPENING:
            self._open(now)
        if isinstance(packet, Close):
            self.state = State.CLOSED
        else:
            self.flow.receive(packet, now)

    def _receive_open(self, packet: Open, now: float) -> None:
        if packet.version != packets.VERSION:
            if self.active:
                self._refuse(
                    f"the board uses version {packet.version} of the link, this side version "
                    f"{packets.VERSION}; install the same version of glioslice on both"
                )
            else:
                self._send_open_soon(now)  # so that the host can name both versions
            return
        if self.state is State.OPEN and packet.session != self._peer:
            self.state = State.RESTARTED
            return
        if packet.session != self._peer:
            self._peer = packet.session
            self._tag = (self.session ^ self._peer) & 0xFFFF
            self.flow.set_peer(packet)
        if packet.peer == self.session:
            if self.state is State.OPENING:
                self._open(now)
            elif self.active:
                self._send_open_soon(now)  # our ACK did not arrive, and perhaps never will
            self.flow.acknowledge(now)
        elif self.state is State.OPENING:
            self._open_at = now
        else:
            self._send_open_soon(now)

    def _open(self, now: float) -> None:
        self.state = State.OPEN
        self._open_at = math.inf
        self.flow.start(now - self._open_sent_at, now)

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        self.state = State.REFUSED
