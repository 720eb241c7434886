"""Time the shipped network and MobileNetV2 on every installed engine, in one run.

    python benchmarks/engines.py            writes benchmarks/engines/times.json and docs/engines.md
    python benchmarks/engines.py --quick    a few rounds, printed only

An engine that is not installed is skipped and named. An engine is timed only if its output agrees
with LiteRT's.

The networks that the engines are timed with: the shipped one, and MobileNetV2 as reference.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import ROOT, mobilenet_baseline
from benchmarks.pages import fill, processor, table
from benchmarks.runtimes import Load, ModelFiles, find_engines
from convert.export import INPUT, convert_onnx, export_onnx, fold_thresholds
from convert.log_capture import capture_output
from convert.own_model import thresholds_of
from convert.tflite.reader import ops_of, read_model
from glioslice import cli
from glioslice.cases import phantom_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json
from glioslice.model_card import find_model
from glioslice.preprocessing import slice_volume
from training.checkpoint import load_model
from training.network import count_macs

TIMES = ROOT / "benchmarks" / "engines" / "times.json"
PAGE = ROOT / "docs" / "engines.md"
THREADS = 1, 2
ROUNDS, QUICK = 200, 5

BOARD_ENGINE, GOAL = "ai-edge-litert", 0.5
"""The engine of the goal, and the share of the reference network's time that a slice may take."""

PAUSE = 0.05
"""Seconds to wait after threads: they spin for a while and would slow the next network."""

Clock = Callable[[], float]

PHANTOM, EVERY = 0, 8
"""The phantom whose slices are run; every eighth calibrates ONNX Runtime's int8."""

MIN_DICE = 0.95
"""The Dice between masks of two engines, at least. OpenVINO agrees least, and even less on
processors without VNNI: there int8 products are added in pairs that saturate at 16 bits."""


@dataclass(frozen=True, eq=False)
class TimedNetwork:
    """A network in one or more precisions, and the input `sample` (1, H, W, C) for timing.

    `agreement` compares two outputs, channels last; two engines that run this network agree by at
    least `min_agreement`. Times are compared with those of the `reference` network.
    """

    name: str
    models: Mapping[str, ModelFiles]
    sample: NDArray[np.float32]
    macs: int
    agreement: Callable[[NDArray[np.float32], NDArray[np.float32]], float]
    min_agreement: float
    reference: bool = False

    @property
    def sha256(self) -> str:
        """The SHA-256 of the int8 TFLite file."""
        return hashlib.sha256(self.models["int8"].tflite).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A network in one precision on one engine, loaded; `agreement` is with LiteRT."""

    engine: str
    network: TimedNetwork
    precision: str
    threads: int
    agreement: float
    invoke: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class EngineTime:
    """The time of an entry: median and 90th percentile of milliseconds, and derived figures.

    `gmacs` are 10^9 multiply-accumulates a second at the median; `ratio` is the median over that of
    the reference network on the same engine and threads, None for that network itself.
    """

    engine: str
    network: str
    precision: str
    threads: int
    median: float
    p90: float
    gmacs: float
    ratio: float | None
    agreement: float


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and measure."""
    parser = cli.parser(
        "Time the shipped network on every engine that is installed.",
        "python benchmarks/engines.py --quick",
    )
    parser.add_argument("--quick", action="store_true", help="a few rounds, printed only")
    cli.run(time_engines, parser.parse_args(argv))


def time_engines(arguments: argparse.Namespace) -> None:
    """Time the engines, and write file and page unless --quick is given."""
    engines, missing = find_engines()
    for name, reason in missing.items():
        print(f"{name} is skipped: {reason}", flush=True)
    networks = shipped_network(), reference_network()
    rounds = QUICK if arguments.quick else ROUNDS
    result = {
        "machine": processor(),
        "engines": {name: metadata.version(name) for name in engines},
        "skipped": missing,
        "rounds": rounds,
        "networks": {n.name: {"macs": n.macs, "sha256": n.sha256} for n in networks},
    }
    measured = time_entries(load_entries(engines, networks), rounds)
    result["rows"] = [asdict(row) for row in summarize(measured)]
    print(times_table(result), goal_line(result), sep="\n\n")
    if not arguments.quick:
        write_json(TIMES, result)
        write_page()
        print(f"written: {TIMES.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


def load_entries(
    engines: Mapping[str, Load], networks: Sequence[TimedNetwork], threads: Sequence[int] = THREADS
) -> list[Entry]:
    """Load every network in every precision on every engine, and check their outputs.

    Raises GliosliceError if an output disagrees with that of the first engine's int8.
    """
    loaded_entries = []
    for network in networks:
        wanted: NDArray[np.float32] | None = None
        for (name, load), precision, count in product(engines.items(), network.models, threads):
            loaded = load(network.models[precision], network.sample, count)
            output = loaded.dequantize(loaded.invoke())
            wanted = output if wanted is None else wanted
            agreement = network.agreement(wanted, output)
            if not agreement >= network.min_agreement:
                raise GliosliceError(
                    f"{network.name} in {precision} on {name}: agrees with {next(iter(engines))} "
                    f"by {agreement:.3f}, expected at least {network.min_agreement}; it "
                    "computes another network, so nothing was timed"
                )
            entry = Entry(name, network, precision, count, agreement, loaded.invoke)
            loaded_entries.append(entry)
    return loaded_entries


def time_entries(
    loaded: Sequence[Entry], rounds: int, clock: Clock = time.perf_counter
) -> list[tuple[Entry, list[float]]]:
    """Return the milliseconds of each entry, one for every round.

    Entries are interleaved, so that a busy moment of the machine affects all of them. Each runs
    twice and the second run counts: its weights are then in the caches, as within a volume.
    """
    measured: list[tuple[Entry, list[float]]] = [(entry, []) for entry in loaded]
    for _ in track(range(rounds), "timing"):
        for entry, times in measured:
            entry.invoke()
            began = clock()
            entry.invoke()
            times.append((clock() - began) * 1000)
            if entry.threads > 1:
                time.sleep(PAUSE)
    return measured


def summarize(measured: Sequence[tuple[Entry, Sequence[float]]]) -> list[EngineTime]:
    """Return the figures of each entry."""
    medians = {
        (e.engine, e.threads): float(np.median(times))
        for e, times in measured
        if e.network.reference
    }
    figures = []
    for entry, times in measured:
        median, p90 = (float(value) for value in np.percentile(times, (50, 90)))
        other = None if entry.network.reference else medians.get((entry.engine, entry.threads))
        figures.append(
            EngineTime(
                entry.engine,
                entry.network.name,
                entry.precision,
                entry.threads,
                median=round(median, 3),
                p90=round(p90, 3),
                gmacs=round(entry.network.macs / median / 1e6, 1),
                ratio=None if other is None else round(median / other, 3),
                agreement=round(entry.agreement, 4),
            )
        )
    return figures


def write_page(page: Path = PAGE, times: Path = TIMES) -> None:
    """Write the measured times into the page."""
    result = read_json(times)
    parts = {"machine": machine_line, "times": times_table, "aim": goal_line}
    fill(page, {name: part(result) for name, part in parts.items()})


def machine_line(result: Mapping[str, Any]) -> str:
    """Return the machine, the engines with their versions, and those that were skipped."""
    engines = ", ".join(f"{name} {number}" for name, number in result["engines"].items())
    skipped = "".join(f" Not installed, so skipped: {name}." for name in result["skipped"])
    return f"{result['machine']}; {engines}; {result['rounds']} rounds.{skipped}"


def goal_line(result: Mapping[str, Any]) -> str:
    """Return how the int8 file compares with the goal on the engine that boards get."""
    found = [
        f"{row['ratio']:.2f} on {row['threads']} thread{'s' * (row['threads'] > 1)}"
        for row in result["rows"]
        if row["engine"] == BOARD_ENGINE and row["precision"] == "int8" and row["ratio"] is not None
    ]
    return (
        f"The goal is that a slice takes at most {GOAL} of MobileNetV2's time on {BOARD_ENGINE}, "
        f"the engine that boards get: it takes {' and '.join(found) or 'an unknown share'} here."
    )


def times_table(result: Mapping[str, Any]) -> str:
    """Return a row for each engine and number of threads: the shipped network and the reference."""
    found = {(r["engine"], r["threads"], r["network"], r["precision"]): r for r in result["rows"]}
    mine, reference = result["networks"]
    lines = []
    for engine, threads in dict.fromkeys((r["engine"], r["threads"]) for r in result["rows"]):
        fp32, int8 = (found[engine, threads, mine, precision] for precision in ("fp32", "int8"))
        other = found[engine, threads, reference, "int8"]
        cells = [
            f"{r['median']:.2f}, {r['p90']:.2f} ({r['gmacs']:.0f})" for r in (fp32, int8, other)
        ]
        lines.append([engine, threads, *cells, f"{int8['ratio']:.2f}"])
    head = f"{mine} fp32", f"{mine} int8", f"{reference} int8", "slice to MobileNetV2, int8"
    return table(("engine", "threads", *head), lines)


def shipped_network() -> TimedNetwork:
    """Return the shipped network: its int8 file, and other files made from its checkpoint."""
    file = find_model()
    network, card = load_model(file.parent)
    slices, _ = slice_volume(phantom_case(PHANTOM).images, card.window, card.clip)
    sample = slices[len(slices) // 2][None]
    final = fold_thresholds(network, thresholds_of(card))
    fp32 = export_onnx(final, (network.config.inputs, *card.window))
    models = {
        # First, because all others must agree with the shipped file.
        "int8": ModelFiles(file.read_bytes(), quantize_onnx(fp32, slices[::EVERY])),
        "fp32": ModelFiles(convert_onnx(fp32, sample)["fp32"], fp32),
    }
    return TimedNetwork(
        card.name, models, sample, count_macs(network, card.window), logit_dice, MIN_DICE
    )


def reference_network() -> TimedNetwork:
    """Return the reference network, in int8 alone."""
    samples, tflite = mobilenet_baseline.samples(), mobilenet_baseline.int8_file()
    model = ModelFiles(tflite, quantize_onnx(mobilenet_baseline.onnx_file(), samples))
    return TimedNetwork(
        mobilenet_baseline.NAME,
        {"int8": model},
        samples[:1],
        sum(op.macs for op in ops_of(read_model(tflite))),
        correlation,
        min_agreement=0.9,
        reference=True,
    )


def quantize_onnx(fp32: bytes, samples: NDArray[np.float32]) -> bytes:
    """Return a float ONNX model of one input, INPUT, with int8 weights and uint8 activations.

    ONNX Runtime's own static quantization, in QDQ form with a scale for each output channel; the
    extremes over `samples` (N, H, W, C) are the ranges. Activations are uint8 because ONNX Runtime
    then computes every convolution in integers; with int8 it leaves some in float on x86-64 and is
    slower. Input and output stay float32.
    """
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch, capture_output():
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        plain, ready, done = (Path(scratch) / f"{name}.onnx" for name in ("plain", "ready", "done"))
        plain.write_bytes(fp32)
        # Folds constants and merges nodes: nodes that remain would be quantized one by one.
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            done,
            _CalibrationReader(samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return done.read_bytes()


class _CalibrationReader:
    """Samples for ONNX Runtime's calibration."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next sample as the network's input, None after the last."""
        for one in self._left:
            return {INPUT: np.ascontiguousarray(one.transpose(2, 0, 1)[None])}
        return None


def logit_dice(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the Dice overlap of the masks, logits above 0, of all regions together."""
    a, b = one > 0, other > 0
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return Pearson's correlation of two outputs."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


if __name__ == "__main__":
    main()
