"""Frames to a reliable ordered stream of messages, in both directions, without threads or a clock.

Bytes and the time go in, bytes come out: `connection` runs a link over a port, tests run it in
virtual time. A link is one session between an active end, which calls, and a passive end, which
answers and says nothing before it is called. `State` lists where it can stand.
"""

import math
import secrets
from dataclasses import asdict

from glioslice.wire import packets
from glioslice.wire.frames import FrameReader, encode
from glioslice.wire.packets import (
    Ack,
    Close,
    Data,
    Open,
    Packet,
    PacketError,
    Probe,
    Rate,
    expand,
)
from glioslice.wire.receiver import MAX_MESSAGE, Receiver, StreamError
from glioslice.wire.sender import Sender
from glioslice.wire.state import Counts, LinkError, Settings, State
from glioslice.wire.tuning import BASE, Tuner, offered

__all__ = ["MAX_MESSAGE", "Counts", "Link", "LinkError", "Settings", "State"]

CALL_INTERVAL = 0.25
KEEP_ALIVE = 1.0
ACK_DELAY = 0.02
"""Seconds that an acknowledgement waits for data to travel with."""

ACK_BYTES = 4096
"""Bytes that may arrive before an acknowledgement leaves without waiting."""

GOODBYES = 3
"""CLOSE is not acknowledged; three copies leave."""


class Link:
    """One end of one session."""

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
        self._peer = self._rates = 0
        self._sender = Sender(self.settings.payload)
        self._receiver = Receiver(self.settings.window)
        self._tuner = Tuner(active, self.settings.rates)
        self._call_at = 0.0 if active else math.inf
        self._called_at = -math.inf
        self._ack_at = math.inf
        self._sent_at = -math.inf
        self._acknowledged = 0
        self._edge = 0
        self._goodbyes = 0

    @property
    def counts(self) -> Counts:
        """What has happened so far, as a copy."""
        frames, sender = self.reader.counts, self._sender
        return Counts(
            **{
                **asdict(self._counts),
                "bytes_received": frames.bytes,
                "frames_received": frames.frames,
                "skipped": frames.skipped,
                "bad_frames": frames.malformed + frames.bad_crc + frames.too_long,
                "retransmits": sender.retransmits,
                "repeated_bytes": sender.repeated_bytes,
                "duplicates": self._receiver.duplicates,
            }
        )

    @property
    def rate(self) -> int | None:
        """The baud rate that the port is to have from now on; None: the one it has."""
        if not self.settings.rates:
            return None
        lives = self.state in (State.OPENING, State.OPEN) or self._goodbyes
        return self._tuner.rate if lives else BASE

    @property
    def queued(self) -> int:
        """Bytes handed in by `send` that the peer has not yet acknowledged."""
        return self._sender.queued

    @property
    def buffered(self) -> int:
        """Bytes of received data held at this moment."""
        return self._receiver.buffered + self.reader.buffered

    def send(self, message: bytes) -> None:
        """Queue a message of 1 to `MAX_MESSAGE` bytes; raises LinkError for another length."""
        if not 1 <= len(message) <= MAX_MESSAGE:
            raise LinkError(f"a message has 1 to {MAX_MESSAGE} bytes, not {len(message)}")
        self._sender.add(message)

    def take(self, now: float) -> bytes | None:
        """Return the next message that has arrived, None if there is none."""
        message = self._receiver.take()
        if message is not None and self._receiver.edge - self._edge >= self.settings.window // 4:
            self._ack_at = min(self._ack_at, now)
        return message

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
        tuner = self._tuner
        rates = tuner.next_time(self._sender.idle, self.heard_at)
        if tuner.silent:
            return rates
        if self._sender.ready(tuner.holding) or tuner.announcements:
            return -math.inf
        keep_alive = self._sent_at + KEEP_ALIVE
        return min(rates, self._sender.next_time(), self._ack_at, self._call_at, keep_alive)

    def _next_packet(self, now: float) -> Packet | None:
        if self._goodbyes:
            self._goodbyes -= 1
            return Close(self._tag)
        if self.state in (State.OPENING, State.OPEN) and now >= self._call_at:
            return self._call(now)
        if self.state is not State.OPEN:
            return None
        about_rates = self._next_about_rates(now)
        tuner = self._tuner
        if about_rates is not None or tuner.silent:
            return about_rates
        if tuner.announcements:
            tuner.announcements -= 1
            return self._ack()
        self._sender.check_time(now)
        due = now >= min(self._ack_at, self._sent_at + KEEP_ALIVE)
        ready = self._sender.ready(tuner.holding)
        if self._edge_moved or (due and (self._receiver.gap or not ready)):
            return self._ack()
        segment = self._sender.next_segment(now) if ready else None
        if segment is None:
            return None
        if not self._receiver.gap:
            self._ack_at = math.inf
        self._acknowledged = self._receiver.expected
        return Data(self._tag, segment[0], self._acknowledged, segment[1])

    def _next_about_rates(self, now: float) -> Rate | Probe | None:
        """Return what the tuner has to say; it may have changed the rate."""
        tuner, sender, frames = self._tuner, self._sender, self.reader.counts
        tuner.tick(now, self.heard_at)
        bad = frames.malformed + frames.bad_crc + frames.too_long
        tuner.weigh(sender.lost, sender.arrived, bad, frames.frames, now)
        return tuner.next_packet(self._tag, sender.idle, now)

    @property
    def _tag(self) -> int:
        return (self.session ^ self._peer) & 0xFFFF

    @property
    def _edge_moved(self) -> bool:
        """Whether the peer may send much more than it has been told: only ACK says so."""
        return self._receiver.edge - self._edge >= self.settings.window // 4

    def _call(self, now: float) -> Open:
        calling = self.state is State.OPENING and (self.active or self._peer)
        self._call_at = now + CALL_INTERVAL if calling else math.inf
        self._called_at = now
        own = self.settings
        return Open(self.session, self._peer, own.payload, own.window, offered(own.rates))

    def _ack(self) -> Ack:
        receiver = self._receiver
        self._ack_at = math.inf
        self._acknowledged, self._edge = receiver.expected, receiver.edge
        return Ack(self._tag, receiver.expected, receiver.edge, receiver.pairs())

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
            self._sender.limit(packet.payload)
            self._sender.edge = packet.window
            self._edge = self.settings.window
            self._rates = packet.rates
        if packet.peer == self.session:
            self._opened(now)
            self._ack_at = now
        elif self.state is State.OPENING:
            self._call_at = now
        else:
            self._answer(now)

    def _opened(self, now: float) -> None:
        if self.state is State.OPENING:
            self.state = State.OPEN
            self._call_at = math.inf
            self._ack_at = now
            self._tuner.opened(self._rates, now - self._called_at, now)

    def _receive_tagged(self, packet: Data | Ack | Close | Rate | Probe, now: float) -> None:
        sender = self._sender
        if isinstance(packet, Close):
            self.state = State.CLOSED
            return
        if isinstance(packet, Rate | Probe):
            self._tuner.heard(packet, now)
            return
        self._tuner.heard(None, now)
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
        receiver = self._receiver
        try:
            urgent = receiver.add(expand(packet.offset, receiver.expected), packet.payload)
        except StreamError as error:
            self._refuse(str(error))
            return
        if urgent or receiver.expected - self._acknowledged >= ACK_BYTES:
            self._ack_at = min(self._ack_at, now)
        else:
            self._ack_at = min(self._ack_at, now + ACK_DELAY)

    def _refuse(self, why: str) -> None:
        self.refusal = why
        self.state = State.REFUSED
