"""Check that this board computes the same masks as every other board.

    glioslice selftest [--model MODEL] [--json FILE]
    python -m device selftest                              # the same on a board

Exit code 0: all tests passed, 1: a test failed, 2: model, goldens or runtime are missing.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.engine import (
    COMPILED,
    EDGE_TPU,
    REFERENCE,
    XNNPACK,
    Engine,
    add_engine_options,
)
from device.goldens import (
    GOLDENS,
    MIRRORED,
    Goldens,
    compute_masks,
    golden_key,
    golden_slices,
    read_goldens,
)
from device.telemetry import board_name, read_telemetry
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import sha256, write_json
from glioslice.model_card import CARD, find_model, read_card

ALWAYS_XNNPACK = ("ai-edge-litert", "tensorflow")
"""Runtimes whose every build for 64-bit boards lets XNNPACK run int8; tflite-runtime may not."""

TOLERATED_SHARE = 0.01
"""Share of tumour pixels in which kernels without goldens may differ from the reference kernels.
XNNPACK differs in 6 to 18 of about 3,000 (tests/oracle/test_networks.py)."""


@dataclass(frozen=True)
class CheckResult:
    """A test's name, whether it passed (None: it did not run), and its findings."""

    test: str
    passed: bool | None
    text: str

    def __str__(self) -> str:
        """Return the result on one line."""
        verdict = {True: "ok", False: "FAILED", None: "not run"}[self.passed]
        return f"{verdict:8}{self.test}: {self.text}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tests and print their results."""
    parser = cli.parser(
        "Check that this board computes the same masks as every other board.",
        "glioslice selftest --json selftest.json",
    )
    add_engine_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    cli.run(selftest, parser.parse_args(argv))


def selftest(arguments: argparse.Namespace) -> None:
    """Run the tests that `arguments` select; a failed test ends with exit code 1."""
    model = find_model(arguments.model)
    board, telemetry = board_name(), read_telemetry()
    print(f"self-test of {model.name} on {board}, Python {platform.python_version()}")
    results = []
    for result in run_tests(model, arguments.threads, arguments.delegate):
        print(result, flush=True)
        results.append(result)
    for line in telemetry.lines():
        print(f"{'':8}{line}")
    passed = all(result.passed is not False for result in results)
    print("self-test passed" if passed else "self-test FAILED")
    if arguments.json:
        report: dict[str, Any] = {"passed": passed, "board": board, "model": model.name}
        report["findings"] = [asdict(result) for result in results]
        write_json(arguments.json, report | asdict(telemetry))
    if not passed:
        sys.exit(1)


def run_tests(model: Path, threads: int = 1, delegate: str | None = None) -> Iterator[CheckResult]:
    """Yield the result of each test; a model that does not match its card ends them.

    Raises GliosliceError if the model, its card, its goldens or a runtime is missing.
    """
    yield (digest := check_digest(model))
    if not digest.passed:
        return
    engine = Engine(model, threads=threads, delegate=delegate)
    yield check_kernels(engine, delegate)
    if engine.input.dtype != np.int8:
        text = "a float file has none, its sums depend on the processor"
        yield CheckResult("golden masks", None, text)
        return
    goldens = read_goldens(model.parent, engine.card.window)
    if goldens.sha256 != sha256(model):
        text = f"{GOLDENS} beside {model.name} belongs to another file; run tools/goldens.py"
        yield CheckResult("golden masks", False, text)
        return
    slices = golden_slices(engine)
    modes = [mode for mode in (False, True) if reference_key(mode) in goldens.masks]
    if engine.mirroring not in modes or {m.shape for m in goldens.masks.values()} != {
        slices.shape[:3]
    }:
        raise GliosliceError(
            f"{model.parent / GOLDENS}: expected masks of {len(slices)} slices, those of the "
            "reference kernels among them; make it again with tools/goldens.py"
        )
    for mode in modes:
        yield check_masks(
            Engine(model, threads=threads, delegate=delegate, mirroring=mode), goldens, slices
        )
        if engine.kernels != EDGE_TPU:  # no other kernel runs a file compiled for it
            reference = Engine(model, threads=threads, reference=True, mirroring=mode)
            yield check_reference(reference, goldens, slices)


def reference_key(mirroring: bool) -> str:
    """Return the key of the golden masks of the reference kernels."""
    return REFERENCE + MIRRORED * mirroring


def check_digest(model: Path) -> CheckResult:
    """Compare the file's SHA-256 with its card. Raises GliosliceError if either is missing."""
    if not model.is_file():
        raise GliosliceError(f"{model}: no such model file")
    entry = read_card(model.parent).content.get("files", {}).get(model.name)
    if entry is None:
        raise GliosliceError(f"{model}: {CARD} beside it does not list this file")
    expected, digest = entry.get("sha256"), sha256(model)
    text = f"{model.stat().st_size:,} bytes, SHA-256 {digest[:12]}"
    if digest != expected:
        text += f", but {CARD} lists {str(expected)[:12]}: changed or damaged, copy both again"
    return CheckResult("model", digest == expected, text)


def check_kernels(engine: Engine, delegate: str | None) -> CheckResult:
    """Check that XNNPACK or the accelerator runs the network; a silent fallback fails."""
    report = engine.delegate_report()
    text = f"{engine.runtime} on {platform.machine()}, kernels {engine.kernels}, {report}"
    if delegate:
        passed = report.compiled > 0 and COMPILED not in report.remaining
        if not passed:
            text += f"; {delegate} runs nothing: no op of this file is compiled for the Edge TPU"
    else:
        expected = engine.runtime.startswith(ALWAYS_XNNPACK)
        passed = engine.kernels == XNNPACK or not expected
        if not passed:
            text += "; XNNPACK should run all arithmetic: is /sys mounted, the runtime complete?"
    return CheckResult("runtime", passed, text)


def check_masks(engine: Engine, goldens: Goldens, slices: NDArray[np.int8]) -> CheckResult:
    """Compare the masks that this board would send with the golden ones, byte for byte.

    Kernels without goldens are compared with the reference kernels, within TOLERATED_SHARE.
    """
    key, masks = golden_key(engine), compute_masks(engine, slices)
    if key in goldens.masks:
        return compare_masks("golden masks", key, masks, goldens.masks[key])
    if engine.kernels == EDGE_TPU:
        return CheckResult("golden masks", None, f"{key}: no goldens exist")
    reference = goldens.masks[reference_key(engine.mirroring)]
    different, tumour = int((masks != reference).sum()), int((reference > 0).sum())
    text = f"{key} has no goldens; {different} of {tumour:,} tumour pixels differ from {REFERENCE}"
    return CheckResult("golden masks", different <= TOLERATED_SHARE * tumour, text)


def check_reference(engine: Engine, goldens: Goldens, slices: NDArray[np.int8]) -> CheckResult:
    """Compare the reference kernels, the same on every machine, with their golden mask.

    Only the slice with the most tumour, because a small board needs seconds for one slice.
    """
    golden = goldens.masks[reference_key(engine.mirroring)]
    fullest = int((golden > 0).sum(axis=(1, 2)).argmax())
    one = slice(fullest, fullest + 1)
    source = f"{engine.runtime}, {golden_key(engine)}"
    return compare_masks("reference mask", source, compute_masks(engine, slices[one]), golden[one])


def compare_masks(
    test: str, source: str, masks: NDArray[np.uint8], golden: NDArray[np.uint8]
) -> CheckResult:
    """Return whether masks (N, X, Y) made by `source` equal the golden ones."""
    different = masks != golden
    if different.any():
        slices = np.count_nonzero(different.any(axis=(1, 2)))
        text = f"{int(different.sum()):,} pixels in {slices} slices differ from the golden masks"
        return CheckResult(test, False, f"{source}: {text}")
    return CheckResult(test, True, f"{source}: {len(masks)} of {len(masks)} slices, byte for byte")


if __name__ == "__main__":
    main()
