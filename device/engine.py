"""The inference engine: one interface to whichever TFLite runtime is installed.

    engine = Engine(Path("models/compact/compact-int8.tflite"))
    regions = engine.run(z_scores)               # (X, Y, 4) float32 -> WT, TC, ET (3, X, Y) bool

The engine refuses a file that does not match the card beside it.
"""

import argparse
import ctypes
import importlib
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice import cli, startup
from glioslice.cases import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.model_card import Card, read_verified_card
from glioslice.preprocessing import quantize

logger = logging.getLogger(__name__)

RUNTIMES = (
    ("ai-edge-litert", "ai_edge_litert.interpreter"),
    ("tflite-runtime", "tflite_runtime.interpreter"),
    ("tensorflow", "tensorflow.lite.python.interpreter"),
)
"""Distribution and module, the smallest and newest first."""

REFERENCE, XNNPACK, EDGE_TPU, BUILT_IN = "reference", "XNNPACK", "Edge TPU", "built-in"
"""Kinds of kernels. XNNPACK and the reference kernels give the same bytes on every machine.
Built-in kernels differ between machines; a network that runs partly on them counts as built-in."""

FILE_IDENTIFIER = slice(4, 8), b"TFL3"
"""Position and value of the file identifier in a TFLite flatbuffer."""

STDERR = 2
"""The file descriptor on which the runtimes' C++ code logs."""

ACCELERATED = "EdgeTpuDelegateForCustomOp"
"""The part that libedgetpu inserts where a compiled file has `COMPILED`."""

COMPILED = "edgetpu-custom-op"
DELEGATE_PARTS = ("DELEGATE", ACCELERATED)
COPYING_OPS = frozenset({"RESIZE_NEAREST_NEIGHBOR"})
"""Ops that only copy values, alike in every kernel. XNNPACK has no nearest-neighbour resize."""


@dataclass(frozen=True)
class DelegateReport:
    """Who runs the `ops` ops of a network: delegates in `parts` parts, the runtime the `remaining`.

    `remaining` are names, `remaining_indices` their positions in the file. `compiled` counts the
    ops that the Edge TPU's compiler made.
    """

    ops: int
    remaining: tuple[str, ...]
    remaining_indices: tuple[int, ...]
    parts: int
    compiled: int

    @property
    def remaining_arithmetic(self) -> tuple[str, ...]:
        """The remaining ops that compute; there are none if XNNPACK works as it should."""
        return tuple(name for name in self.remaining if name not in COPYING_OPS)

    @property
    def taken(self) -> int:
        """The number of ops that delegates run."""
        return self.ops - len(self.remaining)

    def __str__(self) -> str:
        """Return the report on one line."""
        counted = ", ".join(f"{n} {name}" for name, n in Counter(self.remaining).items())
        remaining = f"; remaining: {counted}" if counted else ""
        return f"{self.taken} of {self.ops} ops delegated in {self.parts} parts{remaining}"


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add `--model`, `--threads` and `--delegate` to a command that runs one network."""
    parser.add_argument("--model", help="a shipped size, a folder or a file; default: compact")
    parser.add_argument(
        "--threads", type=cli.positive, default=1, help="threads of the runtime; default: 1"
    )
    parser.add_argument(
        "--delegate", metavar="LIBRARY", help="an accelerator's library, such as libedgetpu.so.1"
    )


def add_mirroring_option(parser: argparse.ArgumentParser) -> None:
    """Add `--no-mirroring`."""
    parser.add_argument(
        "--no-mirroring", action="store_true",
        help="run the network once per slice, even if the model's card asks for mirroring",
    )  # fmt: skip


@dataclass(frozen=True)
class EngineTensor:
    """A tensor of the network; `scale` is 0 if it is not quantized."""

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int


class Engine:
    """The network of one TFLite file, bound to the card beside it.

    `delegate` is the shared library of an accelerator, such as `libedgetpu.so.1`. `reference`
    selects the runtime's reference kernels: slow, but the same bytes on every machine. `mirroring`
    is test-time augmentation by mirroring; by default the card decides.
    Raises GliosliceError if no runtime is installed, if the runtime refuses the file, if the card
    does not match the file, or if input and output are not (1, X, Y, 4) and (1, X, Y, 3), each int8
    or float32.
    """

    def __init__(
        self,
        model: Path,
        *,
        threads: int = 1,
        delegate: str | None = None,
        reference: bool = False,
        mirroring: bool | None = None,
    ) -> None:
        self.card: Card = read_verified_card(model)
        self.mirroring = self.card.mirroring if mirroring is None else mirroring
        self.runtime, module = installed_runtime()
        self._reference = reference
        content = model.read_bytes()
        if content[FILE_IDENTIFIER[0]] != FILE_IDENTIFIER[1]:
            raise GliosliceError(f"{model}: not a TFLite file")
        kernels = module.OpResolverType
        self._interpreter = load_interpreter(
            model,
            model_content=content,
            num_threads=threads,
            experimental_delegates=[_load_delegate(module, delegate)] if delegate else None,
            experimental_op_resolver_type=kernels.BUILTIN_REF if reference else kernels.AUTO,
        )
        self.input = _only_tensor(model, "input", self._interpreter.get_input_details())
        self.output = _only_tensor(model, "output", self._interpreter.get_output_details())
        window = (1, *self.card.window)
        _check_tensor(model, "input", self.input, (*window, len(MODALITIES)))
        _check_tensor(model, "output", self.output, (*window, len(REGIONS)))

    def prepare(self, z_scores: NDArray[np.float32]) -> NDArray[Any]:
        """Return a slice (X, Y, 4) of z-scores in the network's input type, int8 or float32."""
        if self.input.scale:
            return quantize(z_scores, self.input.scale, self.input.zero_point)
        return z_scores.astype(np.float32)

    def logits(self, prepared: NDArray[Any]) -> NDArray[Any]:
        """Return the logits (X, Y, 3) of a prepared slice, from which its mask is made.

        With mirroring they are those of the slice plus those of the slice mirrored left to right,
        mirrored back: as int16 of an int8 network, as the mean of a float network. Integers are
        added, so every machine whose kernels give the same bytes gives the same sum.
        """
        plain = self.invoke(prepared)
        if not self.mirroring:
            return plain
        mirrored = self.invoke(prepared[::-1])[::-1]
        if plain.dtype == np.int8:
            return np.add(plain, mirrored, dtype=np.int16)
        return np.asarray((plain + mirrored) / np.float32(2))

    @property
    def logit_scale(self) -> float:
        """The scale of `logits`: a step of the sum of two is worth half as much."""
        return self.output.scale / 2 if self.mirroring else self.output.scale

    @property
    def logit_zero_point(self) -> int:
        """The zero point of `logits`, above which a pixel is in a region."""
        return self.output.zero_point * 2 if self.mirroring else self.output.zero_point

    def invoke(self, prepared: NDArray[Any]) -> NDArray[Any]:
        """Run the network once; return its output (X, Y, 3) for a prepared slice."""
        self._interpreter.set_tensor(self.input.index, prepared[None])
        self._interpreter.invoke()
        logits: NDArray[Any] = self._interpreter.get_tensor(self.output.index)[0]
        return logits

    def regions(self, logits: NDArray[Any]) -> NDArray[np.bool_]:
        """Return WT, TC, ET (3, X, Y): the pixels whose logit is above the zero point."""
        return np.moveaxis(logits > self.logit_zero_point, -1, 0)

    def run(self, z_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return WT, TC, ET (3, X, Y) of a slice (X, Y, 4) of z-scores."""
        return self.regions(self.logits(self.prepare(z_scores)))

    @property
    def kernels(self) -> str:
        """The kind of kernels that compute: reference, XNNPACK, Edge TPU or built-in."""
        if self._reference:
            return REFERENCE
        report = self.delegate_report()
        if report.compiled:
            return EDGE_TPU
        return XNNPACK if report.parts and not report.remaining_arithmetic else BUILT_IN

    def delegate_report(self) -> DelegateReport:
        """Return which ops delegates run and which the runtime runs itself."""
        return inspect_delegates(self._interpreter._get_ops_details(), (self.output.index,))


@startup.delayed_interrupt()
def installed_runtime() -> tuple[str, ModuleType]:
    """Return name and version of the installed runtime, and its interpreter module.

    Raises GliosliceError if there is none.
    """
    for distribution, module in RUNTIMES:
        try:
            return f"{distribution} {metadata.version(distribution)}", importlib.import_module(
                module
            )
        except (ImportError, metadata.PackageNotFoundError):
            continue
    raise GliosliceError("no TFLite runtime is installed: pip install ai-edge-litert")


@startup.delayed_interrupt()  # the runtime imports parts of numpy
def load_interpreter(model: Path, **options: Any) -> Any:
    """Return the installed runtime's interpreter with its tensors allocated.

    `options` are those of its constructor. What the runtime prints on stderr is logged: information
    at DEBUG, anything else as a warning. Raises GliosliceError, which contains that output, if the
    runtime refuses the file `model`.
    """
    runtime, module = installed_runtime()
    printed: list[str] = []
    try:
        with _captured_stderr(printed):
            interpreter = module.Interpreter(**options)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = "; ".join([str(error), *(line for line in printed if line not in str(error))])
        raise GliosliceError(f"{model}: refused by {runtime}: {reason}") from None
    for line in printed:
        logger.log(logging.DEBUG if line.startswith("INFO:") else logging.WARNING, "%s", line)
    return interpreter


@contextmanager
def _captured_stderr(lines: list[str]) -> Iterator[None]:
    """Append what C code writes to stderr during the block to `lines`.

    The descriptor belongs to the process, so output of other threads is captured too.
    """
    with ExitStack() as stack:
        try:
            original = os.dup(STDERR)
            stack.callback(os.close, original)
            file = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # stderr is closed, or there is no folder for temporary files
            yield
            return
        os.dup2(file.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(original, STDERR)
            file.seek(0)
            lines += [line for line in file.read().decode(errors="replace").splitlines() if line]


def _load_delegate(module: ModuleType, library: str) -> Any:
    try:
        ctypes.CDLL(library).tflite_plugin_create_delegate  # noqa: B018
    except (OSError, AttributeError) as error:
        raise GliosliceError(
            f"the delegate {library} could not be loaded ({error}); install it; a Coral stick "
            "needs the package libedgetpu1-std"
        ) from None
    try:
        return module.load_delegate(library)
    except ValueError as error:
        raise GliosliceError(
            f"the delegate {library} finds no accelerator ({' '.join(str(error).split())}); plug "
            "it in and check that this user may open it"
        ) from None


def _only_tensor(model: Path, name: str, details: list[dict[str, Any]]) -> EngineTensor:
    if len(details) != 1:
        raise GliosliceError(f"{model}: has {len(details)} {name}s, expected one")
    scale, zero_point = details[0]["quantization"]
    return EngineTensor(
        int(details[0]["index"]),
        tuple(int(n) for n in details[0]["shape"]),
        np.dtype(details[0]["dtype"]),
        float(scale),
        int(zero_point),
    )


def _check_tensor(model: Path, name: str, tensor: EngineTensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape or tensor.dtype not in (np.int8, np.float32):
        raise GliosliceError(
            f"{model}: its {name} is {tensor.dtype} {tensor.shape}, expected int8 or float32 "
            f"{shape}; it is not a network of glioslice"
        )


def inspect_delegates(nodes: Sequence[Mapping[str, Any]], outputs: Iterable[int]) -> DelegateReport:
    """Return who runs what, from an interpreter's `_get_ops_details()` and its output tensors.

    A runtime lists a graph's ops, followed by the parts that delegates (XNNPACK or an accelerator)
    took over, but not which ops it still runs itself. So this walks back from the outputs: a tensor
    that a delegated part produces comes from that part, any other from an op of the runtime.
    """
    ops = [node for node in nodes if node["op_name"] not in DELEGATE_PARTS]
    parts = [node for node in nodes if node["op_name"] in DELEGATE_PARTS]
    needed, seen, remaining = set(outputs), set[int](), set[int]()
    while needed:
        tensor = needed.pop()
        seen.add(tensor)
        sources = [part for part in parts if tensor in part["outputs"]]
        if not sources:
            producers = [i for i, op in enumerate(ops) if tensor in op["outputs"]]
            remaining.update(producers)
            sources = [ops[i] for i in producers]
        for source in sources:
            needed |= {int(i) for i in source["inputs"]} - seen
    return DelegateReport(
        ops=len(ops),
        remaining=tuple(ops[i]["op_name"] for i in sorted(remaining)),
        remaining_indices=tuple(sorted(remaining)),
        parts=len(parts),
        compiled=sum(op["op_name"] == COMPILED for op in ops),
    )
