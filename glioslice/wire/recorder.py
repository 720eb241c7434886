"""A port that keeps what it reads and writes in a recording.

    port = RecordedPort(open_port("/dev/ttyUSB0"), Recording(path))
    port = RecordedPort(open_port("/dev/ttyUSB0"), Recording(path), Blinder())  # without images

Closing the port closes the recording.
"""

import zlib
from collections.abc import Callable

from glioslice.wire.blinding import Blinder
from glioslice.wire.recording import UNPACKED, Kind, Recording
from glioslice.wire.transport import AdjustablePort, Port, PortError
from glioslice.wire.volume import Volume

LOST, BACK = b"\0", b"\1"


class RecordedPort:
    """Another port, and a recording of it: without images if there is a `blinder`.

    `say` takes a line for people if the recording had to end before the session.
    """

    def __init__(
        self,
        port: Port,
        recording: Recording,
        blinder: Blinder | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = port.name
        self.port, self._recording, self._blinder, self._say = port, recording, blinder, say
        self._adjustable = port if isinstance(port, AdjustablePort) else None
        self._lost = False

    @property
    def rates(self) -> tuple[int, ...]:
        """The baud rates that the port can take."""
        return self._adjustable.rates if self._adjustable else ()

    def read(self, timeout: float) -> bytes:
        """Return what has arrived, and keep it."""
        try:
            data = self.port.read(timeout)
        except PortError:
            self._note_lost()
            raise
        if not data:
            return data
        if self._blinder is None:
            self._recording.add(Kind.DOWN, data)
        else:
            for piece in self._blinder.down(data):
                self._add_blank(Kind.DOWN_BLANK, piece)
        return data

    def write(self, data: bytes) -> None:
        """Hand `data` to the line, and keep it, with the time at which that began."""
        if self._blinder is None:
            self._recording.add(Kind.UP, data)
        else:
            for piece in self._blinder.up(data):
                self._add_blank(Kind.UP_BLANK, piece)
        try:
            self.port.write(data)
        except PortError:
            self._note_lost()
            raise

    def set_rate(self, baud: int) -> None:
        """Use another rate from now on."""
        if self._adjustable:
            self._adjustable.set_rate(baud)
            self._recording.add(Kind.RATE, baud.to_bytes(4, "little"))

    def reopen(self) -> None:
        """Open the same line again; raises PortError while it is not there, or cannot be."""
        if self._adjustable is None:
            raise PortError(f"{self.name}: this port cannot be opened again", "ended")
        self._adjustable.reopen()
        self._lost = False
        self._recording.add(Kind.LINE, BACK)

    def note(self, volume: Volume) -> None:
        """Keep where the masks of this run belong, which a served run does not say."""
        self._recording.add(Kind.VOLUME, volume.to_bytes())

    def close(self) -> None:
        """Give the port back and end the recording; twice does no harm."""
        self.port.close()
        if self._blinder:
            self._add_blank(Kind.DOWN_BLANK, self._blinder.rest())
        self._recording.close()
        if self._recording.trouble:
            self._say(f"{self._recording.path}: not all was recorded: {self._recording.trouble}")

    def _note_lost(self) -> None:
        if not self._lost:
            self._lost = True
            self._recording.add(Kind.LINE, LOST)

    def _add_blank(self, kind: Kind, data: bytes) -> None:
        for place in range(0, len(data), UNPACKED):
            self._recording.add(kind, zlib.compress(data[place : place + UNPACKED]))
