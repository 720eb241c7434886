"""What crosses while a session is open: pieces of both streams, acknowledgements, baud rates.

A flow decides which packet leaves next and when; who its peer is and whether the session stands is
for `link`. Like it, it has no threads and no clock.
"""

import math

from glioslice.wire import packets
from glioslice.wire.frames import FrameCounts
from glioslice.wire.packets import Ack, Data, Open, Probe, Rate, expand
from glioslice.wire.receiver import Receiver
from glioslice.wire.sender import Sender
from glioslice.wire.state import Settings
from glioslice.wire.tuning import Tuner

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
