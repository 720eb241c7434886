"""One network on its way through the gate: made, judged, and made again another way if need be."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from convert.calibration import Roles, calibration, more_calibration, probes
from convert.export import float_files, with_thresholds
from convert.faithful import blocks_of, check_faithful
from convert.gate import Limits, Measure, measure, refusal
from convert.graph import check_graph
from convert.judging import Verdict, judge
from convert.known import check_layers, check_ops
from convert.ladder import Attempt, Rung, climb, rungs
from convert.layers import Layer, layers_of
from convert.products import File, packed, stage
from glioslice.card import Card
from glioslice.errors import GliosliceError
from training.network import Network

FLOAT_PROBES = 2
"""Slices on which the float file is compared with torch: a layer misread is misread on each."""


@dataclass(frozen=True)
class Conversion:
    """A network, what it is to become, and whom it is calibrated on and judged by.

    `thresholds` are folded into its last bias. `shipped` are files to compare with, by name.
    """

    network: Network
    card: Card
    thresholds: tuple[float, ...]
    precisions: tuple[str, ...]
    roles: Roles
    limits: Limits
    shipped: Mapping[str, Path]


@dataclass(frozen=True)
class Outcome:
    """What a conversion made.

    `tried` are the rungs of int8, the last of which held unless `refused` says why int8 is no
    product; `layers` are those of it, or of the first rung: the network as it is. `others` says how
    the float products stand, by precision.
    """

    files: tuple[File, ...]
    verdicts: dict[str, Verdict]
    tried: tuple[Attempt, ...]
    others: dict[str, Measure]
    layers: tuple[Layer, ...]
    refused: str


def carry_out(conversion: Conversion) -> Outcome:
    """Make the files of a network and climb the ladder until int8 holds.

    Raises GliosliceError if the network has layers that are known to break, a tool fails, a file
    is not what this kit emits, a product is too large, or a float product is below its limit.
    """
    card, roles, limits = conversion.card, conversion.roles, conversion.limits
    check_layers(conversion.network)
    slices, looked_at = calibration(roles.calibrated, card.clip), probes(roles.judged)
    final = with_thresholds(conversion.network, conversion.thresholds)
    floats = float_files(final, card.window, slices)
    names = check_faithful(blocks_of(final, floats["fp32"], looked_at[:FLOAT_PROBES]))
    check_ops(floats["fp32"], names)
    of_floats: dict[str, Verdict] = {}

    def attempt(rung: Rung) -> Attempt:
        content = {"int8": rung.int8, **floats}
        files = packed(card.name, content, conversion.precisions, limits.max_bytes)
        verdicts = of_floats | _judged(conversion, [f for f in files if f.name not in of_floats])
        of_floats.update({f.name: verdicts[f.name] for f in files if f.precision != "int8"})
        return Attempt(rung, files, verdicts, _measured(conversion, verdicts, "int8"))

    ways = rungs(floats["fp32"], slices, lambda: more_calibration(roles.calibrated, card.clip))
    asked = "int8" in conversion.precisions
    tried = climb(ways if asked else islice(ways, 1), attempt)
    last = tried[-1] if tried[-1].measure.held else tried[0]
    others = {p: _measured(conversion, of_floats, p) for p in conversion.precisions if p != "int8"}
    for precision, of in others.items():
        if not of.held:
            raise GliosliceError(f"{card.name}-{precision}.tflite: {of}; nothing was written")
    layers = layers_of(last.rung.fp32, last.rung.int8, looked_at, names)
    refused = ""
    if asked and not last.measure.held:
        refused = refusal(f"{card.name}-int8.tflite", [a.measure for a in tried], layers)
    files = tuple(replace(f, product=f.precision in others) if refused else f for f in last.files)
    return Outcome(files, last.verdicts, tried, others, layers, refused)


def _judged(conversion: Conversion, files: Sequence[File]) -> dict[str, Verdict]:
    network, card = conversion.network, conversion.card
    for file in files:
        check_graph(file.content, file.precision, card.window, network.config.inputs)
    with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:
        staged = stage(Path(folder), card, files)
        return judge(staged, conversion.shipped, network, card, conversion.roles.judged)


def _measured(conversion: Conversion, verdicts: Mapping[str, Verdict], precision: str) -> Measure:
    name = conversion.card.name
    fp32 = verdicts[f"{name}-fp32.tflite"]
    return measure(verdicts[f"{name}-{precision}.tflite"], fp32, conversion.limits)
