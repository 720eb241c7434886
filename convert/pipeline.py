"""What a conversion asks of a network, whoever made it.

One network on its way through the gate: made, judged, and made again another way if need be.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convert.artifacts import File, packed, too_large
from convert.quantize.strategies import Attempt, Rung, climb, rungs
from convert.verify.acceptance import Limits, Measure, Verdict, measure, refusal
from convert.verify.layer_errors import Layer, layers_of
from glioslice.errors import GliosliceError

Slices = NDArray[np.float32]
"""(N, X, Y, C), as the TFLite file takes them one by one."""


class Source(Protocol):
    """A network of this kit (`convert.own_model`) or any other (`convert.external_model`)."""

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


@dataclass(frozen=True)
class Conversion:
    """A network, what it is to become, and within which limits.

    `int8_or_nothing`: int8 may not be left out, for it or a target of it was asked for by name.
    """

    source: Source
    precisions: tuple[str, ...]
    limits: Limits
    int8_or_nothing: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a conversion made.

    `tried` are the rungs of int8, the last of which held unless `left_out` says why int8 is no
    product; `layers` are those of it, or of the first rung: the network as it is. Where they cannot
    be measured `unmeasured` says why. `others` says how the float products stand, by precision.
    `refused` says why nothing may be written, "" if it may.
    """

    files: tuple[File, ...]
    verdicts: dict[str, Verdict]
    tried: tuple[Attempt, ...]
    others: dict[str, Measure]
    layers: tuple[Layer, ...]
    unmeasured: str = ""
    left_out: str = ""
    refused: str = ""


def carry_out(conversion: Conversion) -> Outcome:
    """Make the files of a network and climb the ladder until int8 holds.

    Raises GliosliceError as the methods of its `Source` do.
    """
    source, precisions, limits = conversion.source, conversion.precisions, conversion.limits
    floats, names = source.floats()
    ways = rungs(floats["fp32"], source.calibration(), source.more)
    first = next(ways)
    files = _files(conversion, first, floats)
    if large := too_large(files, limits.max_bytes):
        layers, unmeasured = _layers(source, first, names)
        return Outcome(files, {}, (), {}, layers, unmeasured, refused=large)
    of_floats: dict[str, Verdict] = {}

    def attempt(rung: Rung) -> Attempt:
        files = _files(conversion, rung, floats)
        judged = source.judged([file for file in files if file.name not in of_floats])
        verdicts = of_floats | judged
        of_floats.update({f.name: verdicts[f.name] for f in files if f.precision != "int8"})
        return Attempt(rung, files, verdicts, _measured(conversion, verdicts, "int8"))

    asked = "int8" in precisions
    every: Iterator[Rung] = chain([first], ways)
    tried = climb(every if asked else islice(every, 1), attempt)
    last = tried[-1] if tried[-1].measure.held else tried[0]
    others = {p: _measured(conversion, of_floats, p) for p in precisions if p != "int8"}
    layers, unmeasured = _layers(source, last.rung, names)
    left_out = ""
    if asked and not last.measure.held:
        left_out = refusal(f"{source.name}-int8.tflite", [a.measure for a in tried], layers)
    poor = [f"{source.name}-{p}.tflite: {of}" for p, of in others.items() if not of.held]
    given_up = left_out if conversion.int8_or_nothing or not others else ""
    return Outcome(
        files=tuple(
            replace(f, product=f.precision in others) if left_out else f for f in last.files
        ),
        verdicts=last.verdicts,
        tried=tried,
        others=others,
        layers=layers,
        unmeasured=unmeasured,
        left_out=left_out,
        refused="; ".join(filter(None, [given_up, *poor])),
    )


def _files(conversion: Conversion, rung: Rung, floats: Mapping[str, bytes]) -> tuple[File, ...]:
    return packed(conversion.source.name, {"int8": rung.int8, **floats}, conversion.precisions)


def _layers(source: Source, rung: Rung, names: Mapping[int, str]) -> tuple[tuple[Layer, ...], str]:
    """Return the layers of a rung, or none of them and why they cannot be measured."""
    try:
        return layers_of(rung.fp32, rung.int8, source.probes(), names), ""
    except GliosliceError as error:
        return (), str(error)


def _measured(conversion: Conversion, verdicts: Mapping[str, Verdict], precision: str) -> Measure:
    name = conversion.source.name
    fp32 = verdicts[f"{name}-fp32.tflite"]
    return measure(verdicts[f"{name}-{precision}.tflite"], fp32, conversion.limits)
