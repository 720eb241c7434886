"""The steps of a conversion: make the files, evaluate them, and try int8 again another way.

A `Source` is the network to convert. `run_conversion` makes its float files, quantizes them by one
strategy after the other (`convert.quantization`) and stops at the first int8 file that
passes the acceptance gate (`convert.verify.acceptance`).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Protocol

from convert.artifacts import ModelFile, describe_excess, pack_files
from convert.quantization import (
    Attempt,
    Int8Candidate,
    Slices,
    int8_candidates,
    try_candidates,
)
from convert.verify.acceptance import (
    Evaluation,
    GateResult,
    Limits,
    apply_gate,
    explain_rejection,
)
from convert.verify.layer_errors import Layer, measure_layers
from glioslice.errors import GliosliceError

logger = logging.getLogger(__name__)


class Source(Protocol):
    """A network of glioslice (`convert.own_model`) or any other (`convert.external_model`)."""

    @property
    def name(self) -> str:
        """The stem of its files' names: <name>-int8.tflite."""

    def calibration_slices(self) -> Slices:
        """Return the slices whose extremes become the int8 ranges."""

    def extended_slices(self) -> Slices:
        """Return more slices, better chosen, for when the first ones are not enough."""

    def probe_slices(self) -> Slices:
        """Return a few slices that calibration does not see, on which layers are compared."""

    def float_files(self) -> tuple[dict[str, bytes], dict[int, str]]:
        """Return the fp16 and the fp32 file, and the names of the fp32 file's tensors by index.

        Raises GliosliceError if a layer is unsupported, a tool fails, or the fp32 file does not
        compute what the network does.
        """

    def evaluate(self, files: Sequence[ModelFile]) -> dict[str, Evaluation]:
        """Return the scores of files, by name, on slices or cases that calibration does not see.

        Raises GliosliceError if a file's graph is not what it must be, or no runtime takes it.
        """

    def describe(self) -> dict[str, Any]:
        """Return what `report.json` holds about the network, calibration and evaluation."""


@dataclass(frozen=True)
class Conversion:
    """A network, the products to make of it, and their limits.

    `int8_required`: int8 may not be dropped, because it or a target of it was requested.
    """

    source: Source
    precisions: tuple[str, ...]
    limits: Limits
    int8_required: bool = False


@dataclass(frozen=True)
class ConversionResult:
    """What a conversion made.

    `attempts` are those at int8; the last one passed, unless `int8_rejected` gives the reason why
    int8 is not a product. `layers` are those of the attempt that passed, or else of the first one;
    `layers_error` is the reason why they could not be measured. `float_gates` holds the gate's
    results for the float products, by precision. `rejected` is the reason why nothing may be
    written, "" if it may.
    """

    files: tuple[ModelFile, ...]
    evaluations: dict[str, Evaluation]
    attempts: tuple[Attempt, ...]
    float_gates: dict[str, GateResult]
    layers: tuple[Layer, ...]
    layers_error: str = ""
    int8_rejected: str = ""
    rejected: str = ""


def run_conversion(conversion: Conversion) -> ConversionResult:
    """Make the files of a network, trying strategies until int8 passes the gate.

    Raises GliosliceError as the methods of its `Source` do.
    """
    source, precisions, limits = conversion.source, conversion.precisions, conversion.limits
    logger.info("%s: making the float files", source.name)
    float_files, names = source.float_files()
    logger.info("%s: quantizing", source.name)
    candidates = int8_candidates(
        float_files["fp32"], source.calibration_slices(), source.extended_slices
    )
    first = next(candidates)
    files = _pack(conversion, first, float_files)
    if excess := describe_excess(files, limits.max_bytes):
        layers, layers_error = _measure_layers(source, first, names)
        return ConversionResult(files, {}, (), {}, layers, layers_error, rejected=excess)
    of_floats: dict[str, Evaluation] = {}  # the float files are the same in all attempts

    def attempt(candidate: Int8Candidate) -> Attempt:
        files = _pack(conversion, candidate, float_files)
        new = source.evaluate([file for file in files if file.name not in of_floats])
        evaluations = of_floats | new
        of_floats.update({f.name: evaluations[f.name] for f in files if f.precision != "int8"})
        gate = _gate(conversion, evaluations, "int8")
        logger.info("%s: int8 by %s: %s", source.name, candidate.strategy, gate)
        return Attempt(candidate, files, evaluations, gate)

    int8_wanted = "int8" in precisions
    every: Iterator[Int8Candidate] = chain([first], candidates)
    attempts = try_candidates(every if int8_wanted else islice(every, 1), attempt)
    best = attempts[-1] if attempts[-1].gate.passed else attempts[0]
    gates = {p: _gate(conversion, of_floats, p) for p in precisions if p != "int8"}
    layers, layers_error = _measure_layers(source, best.candidate, names)
    int8_rejected = ""
    if int8_wanted and not best.gate.passed:
        int8_rejected = explain_rejection(
            f"{source.name}-int8.tflite", [a.gate for a in attempts], layers
        )
    failed = [f"{source.name}-{p}.tflite: {gate}" for p, gate in gates.items() if not gate.passed]
    nothing_left = int8_rejected if conversion.int8_required or not gates else ""
    return ConversionResult(
        files=tuple(
            replace(f, product=f.precision in gates) if int8_rejected else f for f in best.files
        ),
        evaluations=best.evaluations,
        attempts=attempts,
        float_gates=gates,
        layers=layers,
        layers_error=layers_error,
        int8_rejected=int8_rejected,
        rejected="; ".join(filter(None, [nothing_left, *failed])),
    )


def _pack(
    conversion: Conversion, candidate: Int8Candidate, float_files: Mapping[str, bytes]
) -> tuple[ModelFile, ...]:
    contents = {"int8": candidate.int8, **float_files}
    return pack_files(conversion.source.name, contents, conversion.precisions)


def _measure_layers(
    source: Source, candidate: Int8Candidate, names: Mapping[int, str]
) -> tuple[tuple[Layer, ...], str]:
    """Return the layers of a candidate, or none of them and why they cannot be measured."""
    try:
        return measure_layers(candidate.fp32, candidate.int8, source.probe_slices(), names), ""
    except GliosliceError as error:
        return (), str(error)


def _gate(
    conversion: Conversion, evaluations: Mapping[str, Evaluation], precision: str
) -> GateResult:
    name = conversion.source.name
    fp32 = evaluations[f"{name}-fp32.tflite"]
    return apply_gate(evaluations[f"{name}-{precision}.tflite"], fp32, conversion.limits)
