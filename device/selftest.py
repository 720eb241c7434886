"""Does this board compute what every other board computes, and with the kernels it should?

    python -m device selftest [--model FILE] [--json FILE]

Exit code 0: all tests passed, 1: one failed, 2: what was asked for is not there.
"""

import argparse
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.delegates import COMPILED
from device.engine import EDGE_TPU, REFERENCE, XNNPACK, Engine
from device.goldens import GOLDENS, Goldens, found, golden_slices, read_goldens, source_of
from device.telemetry import board_name, read_vitals
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import sha256, write_json
from glioslice.model_card import CARD, default_model, read_card

ALWAYS_XNNPACK = ("ai-edge-litert", "tensorflow")
"""Runtimes whose every build for 64-bit boards has XNNPACK take int8; tflite-runtime's may not."""

ALIKE = 0.01
"""Share of the tumour that kernels without goldens may label otherwise than the reference ones:
XNNPACK does so for 6 to 18 of some 3,000 pixels (tests/oracle/test_reference.py)."""


@dataclass(frozen=True)
class Finding:
    """A test's name, whether it passed (None: it was not run), and what it found."""

    test: str
    passed: bool | None
    text: str

    def __str__(self) -> str:
        """Say it on one line."""
        verdict = {True: "ok", False: "FAILED", None: "not run"}[self.passed]
        return f"{verdict:8}{self.test}: {self.text}"


def main(words: Sequence[str] | None = None) -> None:
    """Run the tests and say what they found."""
    parser = cli.parser(
        "Test the model, the runtime and its kernels on this board.",
        "python -m device selftest --json selftest.json",
    )
    parser.prog = "python -m device selftest"
    parser.add_argument("--model", type=Path, help="a .tflite file with its card; default: compact")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--delegate", help="an accelerator's library, such as libedgetpu.so.1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the findings for a machine")
    cli.run(work, parser.parse_args(words))


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says; a failed test ends with exit code 1."""
    model: Path = arguments.model or default_model()
    board, vitals = board_name(), read_vitals()
    print(f"self-test of {model.name} on {board}, Python {platform.python_version()}")
    findings = []
    for finding in examined(model, arguments.threads, arguments.delegate):
        print(finding, flush=True)
        findings.append(finding)
    for line in vitals.lines():
        print(f"{'':8}{line}")
    passed = all(finding.passed is not False for finding in findings)
    print("self-test passed" if passed else "self-test FAILED")
    if arguments.json:
        told: dict[str, Any] = {"passed": passed, "board": board, "model": model.name}
        told["findings"] = [asdict(finding) for finding in findings]
        write_json(arguments.json, told | asdict(vitals))
    if not passed:
        sys.exit(1)


def examined(model: Path, threads: int = 1, delegate: str | None = None) -> Iterator[Finding]:
    """Yield what each test finds; a model that is not its card's ends them.

    Raises GliosliceError if there is no model, card, golden or runtime to test.
    """
    yield (digest := check_digest(model))
    if not digest.passed:
        return
    engine = Engine(model, threads=threads, delegate=delegate)
    yield check_kernels(engine, delegate)
    if engine.input.dtype != np.int8:
        yield Finding("golden masks", None, "a float file has none, its sums depend on the machine")
        return
    goldens = read_goldens(model.parent, engine.card.window)
    if goldens.sha256 != sha256(model):
        text = f"those beside {model.name} were made of another file; tools/goldens.py"
        yield Finding("golden masks", False, f"{text} makes them anew")
        return
    slices = golden_slices(engine)
    if REFERENCE not in goldens.masks or {m.shape for m in goldens.masks.values()} != {
        slices.shape[:3]
    }:
        raise GliosliceError(
            f"{model.parent / GOLDENS}: not the masks of {len(slices)} slices, or none of the "
            "reference kernels; tools/goldens.py writes it anew"
        )
    yield check_masks(engine, goldens, slices)
    if engine.kernels != EDGE_TPU:  # no other kernel runs a file compiled for it
        yield check_reference(Engine(model, threads=threads, reference=True), goldens, slices)


def check_digest(model: Path) -> Finding:
    """Hold the file's SHA-256 against its card's. Raises GliosliceError if either is missing."""
    if not model.is_file():
        raise GliosliceError(f"{model}: no such model file")
    entry = read_card(model.parent).content.get("files", {}).get(model.name)
    if entry is None:
        raise GliosliceError(f"{model}: {CARD} beside it does not list this file")
    wanted, digest = entry.get("sha256"), sha256(model)
    said = f"{model.stat().st_size:,} bytes, SHA-256 {digest[:12]}"
    if digest != wanted:
        said += f", but {CARD} says {str(wanted)[:12]}: changed or damaged, copy both again"
    return Finding("model", digest == wanted, said)


def check_kernels(engine: Engine, delegate: str | None) -> Finding:
    """See whether XNNPACK or the accelerator really took the network: a silent fall-back fails."""
    placed = engine.placement()
    said = f"{engine.runtime} on {platform.machine()}, kernels {engine.kernels}, {placed}"
    if delegate:
        passed = placed.compiled > 0 and COMPILED not in placed.left
        if not passed:
            said += f"; {delegate} took nothing: no op of this file is compiled for the Edge TPU"
    else:
        expected = engine.runtime.startswith(ALWAYS_XNNPACK)
        passed = engine.kernels == XNNPACK or not expected
        if not passed:
            said += "; XNNPACK should run all arithmetic: is /sys mounted, the runtime whole?"
    return Finding("runtime", passed, said)


def check_masks(engine: Engine, goldens: Goldens, slices: NDArray[np.int8]) -> Finding:
    """Hold the masks that this board would send against the golden ones, byte for byte.

    Kernels without goldens of their own are held against the reference ones', with `ALIKE`.
    """
    source, masks = source_of(engine), found(engine, slices)
    if source in goldens.masks:
        return compared("golden masks", source, masks, goldens.masks[source])
    if engine.kernels == EDGE_TPU:
        return Finding("golden masks", None, f"{source}: none was ever made")
    reference = goldens.masks[REFERENCE]
    differ, tumour = int((masks != reference).sum()), int((reference > 0).sum())
    text = f"{source} has none; {differ} pixels differ from the reference kernels' {tumour:,}"
    return Finding("golden masks", differ <= ALIKE * tumour, f"{text} of tumour")


def check_reference(engine: Engine, goldens: Goldens, slices: NDArray[np.int8]) -> Finding:
    """Hold the reference kernels, alike on every machine, to their mask of the fullest slice.

    One slice: on a small board they take seconds for it.
    """
    golden = goldens.masks[REFERENCE]
    fullest = int((golden > 0).sum(axis=(1, 2)).argmax())
    one = slice(fullest, fullest + 1)
    source = f"{engine.runtime}, {engine.kernels}"
    return compared("reference mask", source, found(engine, slices[one]), golden[one])


def compared(
    test: str, source: str, masks: NDArray[np.uint8], golden: NDArray[np.uint8]
) -> Finding:
    """Return whether the masks (N, X, Y) that `source` made are the golden ones."""
    wrong = masks != golden
    if wrong.any():
        slices = np.count_nonzero(wrong.any(axis=(1, 2)))
        text = f"{int(wrong.sum()):,} pixels of {slices} slices are not the golden ones"
        return Finding(test, False, f"{source}: {text}")
    return Finding(test, True, f"{source}: {len(masks)} of {len(masks)} slices, byte for byte")


if __name__ == "__main__":
    main()
