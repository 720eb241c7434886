"""Frames to a reliable ordered stream of messages, in both directions, without threads or a clock.

Bytes and the time go in, bytes come out: `connection` runs a link over a port, tests run it in
virtual time. A link is one session between an active end, which calls, and a passive end, which
answers and says nothing before it is called. `State` lists where it can stand.
"""

import math
import secrets
from dataclasses import asdict

from glioslice.wire import packets
from glioslice.wire.flow import Flow
from glioslice.wire.frames import FrameReader, encode
from glioslice.wire.packets import Ack, Close, Data, Open, Packet, PacketError, Probe, Rate
from glioslice.wire.receiver import MAX_MESSAGE, StreamError
from glioslice.wire.state import Counts, LinkError, Settings, State
from glioslice.wire.tuning import BASE, offered

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
