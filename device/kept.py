"""The run that a board remembers when its host is gone, so that no slice is done twice.

A host that was killed and started again with the same case finds its run by a key, which the host
makes from the slices and from the number of this start of the runner: it means nothing elsewhere,
and a board that restarted knows none. Kept are the answers, never the images. A run is forgotten
when its host has said goodbye after its end, or when another one begins.
"""

from dataclasses import dataclass

from device.answers import Run
from glioslice.wire.messages import Mode


@dataclass
class Kept:
    """The last run, if it has to be remembered, and by what it is found."""

    run: Run | None = None
    mode: Mode = Mode.SERVE
    key: int = 0

    def keep(self, run: Run, mode: Mode, key: int) -> None:
        """Remember this run instead of the one before."""
        self.run, self.mode, self.key = run, mode, key

    def forget(self) -> None:
        """Remember nothing."""
        self.run, self.key = None, 0

    def said(self) -> tuple[int, int]:
        """Return the key and the leading answers of a served run, as BoardHello says them."""
        if self.run is None or self.mode is not Mode.SERVE or not self.key:
            return 0, 0
        return self.key, self.run.answered

    def found(self, mode: Mode, key: int) -> Run | None:
        """Return the run that a host comes back to: a played one needs no key."""
        same = self.mode is mode and (mode is Mode.PLAY or (key and self.key == key))
        return self.run if same else None
