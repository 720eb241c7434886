"""What a conversion asks of a network, whoever made it."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convert.judging import Verdict
from convert.products import File

Slices = NDArray[np.float32]
"""(N, X, Y, C), as the TFLite file takes them one by one."""


class Source(Protocol):
    """A network of this kit (`convert.trained`) or any other (`convert.foreign`)."""

    @property
    def name(self) -> str:
        """What its files are called: <name>-int8.tflite."""

    def calibration(self) -> Slices:
        """Return the slices whose extremes become the int8 ranges."""

    def more(self) -> Slices:
        """Return more and better chosen ones, should those not do."""

    def probes(self) -> Slices:
        """Return a few that calibration does not see, on which layers are compared."""

    def floats(self) -> tuple[dict[str, bytes], dict[int, str]]:
        """Return the fp16 and the fp32 file, and the names of the fp32 file's tensors by index.

        Raises GliosliceError if a layer is known to break, a tool fails, or the fp32 file does
        not compute what the network does.
        """

    def judged(self, files: Sequence[File]) -> dict[str, Verdict]:
        """Return what files are worth, by name, on slices or cases that calibration does not see.

        Raises GliosliceError if a file's graph is not what it must be, or no runtime takes it.
        """

    def account(self) -> dict[str, Any]:
        """Return what `report.json` says of the network, of calibration and of judging."""
