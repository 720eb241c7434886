"""From a source to what is printed and written: the way that every conversion takes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convert.conversion import Conversion, Outcome, carry_out
from convert.picture import picture
from convert.products import PICTURE, File
from convert.report import layer_table, report_of, table
from convert.targets import TARGETS
from convert.targets.outcome import Outcome as Suited
from glioslice.errors import GliosliceError

Write = Callable[[Sequence[File], dict[str, Any], Mapping[str, bytes]], None]
"""Writes files, their report and what was made beside them, by name."""


def deliver(conversion: Conversion, targets: Sequence[str], write: Write) -> None:
    """Convert, print what came of it, and hand it to `write`.

    Raises GliosliceError if no product may be written, or the int8 file does not suit a target.
    """
    name = conversion.source.name
    outcome = carry_out(conversion)
    tell(name, outcome)
    if outcome.refused:
        raise GliosliceError(f"{outcome.refused}; nothing was written")
    suited = suits(outcome, targets)
    beside = {key: content for of in suited for key, content in of.files.items()}
    if outcome.layers:
        beside[PICTURE] = picture(f"{name}-int8.tflite", outcome.layers)
    write(outcome.files, report_of(conversion, outcome, suited), beside)


def tell(name: str, outcome: Outcome) -> None:
    """Print the layers, the files and how int8 came through the gate."""
    if outcome.layers:
        print(layer_table(outcome.layers))
    else:
        say(name, f"no table of layers: {outcome.unmeasured}")
    print(table(outcome.files, outcome.verdicts), flush=True)
    for attempt in outcome.tried:
        how = "held" if attempt.measure.held else "did not hold"
        say(name, f"int8 by {attempt.rung.name}: {attempt.measure}: {how}")
    if outcome.left_out:
        say(name, f"int8 is left out: {outcome.left_out}")


def suits(outcome: Outcome, targets: Sequence[str]) -> tuple[Suited, ...]:
    """Check the int8 product for each target and print what was found.

    Raises GliosliceError naming the ops of a file that does not suit one, and how to mend it.
    """
    [file] = [file for file in outcome.files if file.precision == "int8"]
    found = []
    for target in targets:
        found.append(TARGETS[target](file.content, file.name.removesuffix(".tflite")))
        print(found[-1].table, flush=True)
    against = [f"{of.target}: {of.against}" for of in found if not of.ok]
    if against:
        raise GliosliceError(f"{file.name} does not suit {'; '.join(against)}; nothing was written")
    return tuple(found)


def say(name: str, what: str) -> None:
    """Print a step of the work."""
    print(f"{name}: {what}", flush=True)
