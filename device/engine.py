"""One engine over whichever TFLite runtime is installed."""

import ctypes
import importlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.confidence import quality_of
from device.delegates import Placement, placement_of
from glioslice.cases import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.model_card import Card, read_card_of
from glioslice.preprocessing import quantise

RUNTIMES = (
    ("ai-edge-litert", "ai_edge_litert.interpreter"),
    ("tflite-runtime", "tflite_runtime.interpreter"),
    ("tensorflow", "tensorflow.lite.python.interpreter"),
)
"""Distribution and module, the smallest and newest first."""

REFERENCE, XNNPACK, EDGE_TPU, BUILT_IN = "reference", "XNNPACK", "Edge TPU", "built-in"
"""Kernels. XNNPACK's and the reference ones give a file's bytes on every machine, built-in ones
differ between machines, and a part of XNNPACK's beside them counts as theirs."""

MAGIC = slice(4, 8), b"TFL3"
"""Where a TFLite flatbuffer carries its file identifier, and what it is."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of the network; `scale` is 0 where it is not quantised."""

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int


class Engine:
    """The network of one TFLite file, bound to the card beside it.

    `delegate` is the shared library of an accelerator, such as `libedgetpu.so.1`. `reference` asks
    for the runtime's reference kernels, which give the same bytes on every machine, slowly.
    Raises GliosliceError if no runtime is installed, or it refuses the file; if the card does not
    match the file; if input or output are not (1, X, Y, 4) and (1, X, Y, 3), int8 or float32.
    """

    def __init__(
        self,
        model: Path,
        *,
        threads: int = 1,
        delegate: str | None = None,
        reference: bool = False,
    ) -> None:
        self.card: Card = read_card_of(model)
        self.runtime, module = installed_runtime()
        self._reference = reference
        content = model.read_bytes()
        if content[MAGIC[0]] != MAGIC[1]:
            raise GliosliceError(f"{model}: not a TFLite file")
        delegates = [_delegate(module, delegate)] if delegate else None
        kernels = module.OpResolverType
        try:
            self._interpreter = module.Interpreter(
                model_content=content,
                num_threads=threads,
                experimental_delegates=delegates,
                experimental_op_resolver_type=kernels.BUILTIN_REF if reference else kernels.AUTO,
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise GliosliceError(f"{model}: refused by {self.runtime}: {error}") from None
        self.input = _only(model, "input", self._interpreter.get_input_details())
        self.output = _only(model, "output", self._interpreter.get_output_details())
        window = (1, *self.card.window)
        self._check(model, "input", self.input, (*window, len(MODALITIES)))
        self._check(model, "output", self.output, (*window, len(REGIONS)))

    def prepare(self, z_scores: NDArray[np.float32]) -> NDArray[Any]:
        """Return a slice (X, Y, 4) of z-scores as the network takes it, int8 or float32."""
        if self.input.scale:
            return quantise(z_scores, self.input.scale, self.input.zero_point)
        return z_scores.astype(np.float32)

    def invoke(self, prepared: NDArray[Any]) -> NDArray[Any]:
        """Return what the network says of a prepared slice: logits (X, Y, 3), int8 or float32."""
        self._interpreter.set_tensor(self.input.index, prepared[None])
        self._interpreter.invoke()
        logits: NDArray[Any] = self._interpreter.get_tensor(self.output.index)[0]
        return logits

    def regions(self, logits: NDArray[Any]) -> NDArray[np.bool_]:
        """Return WT, TC, ET (3, X, Y) of what `invoke` returned: logits above the zero point."""
        return np.moveaxis(logits > self.output.zero_point, -1, 0)

    def quality(self, logits: NDArray[Any]) -> int:
        """Return how sure the network is of those regions, a byte (`device.confidence`)."""
        return quality_of(logits, self.output.scale, self.output.zero_point)

    @property
    def kernels(self) -> str:
        """Whose arithmetic it is: reference, XNNPACK, Edge TPU, or else built-in."""
        if self._reference:
            return REFERENCE
        placed = self.placement()
        if placed.compiled:
            return EDGE_TPU
        return XNNPACK if placed.parts and not placed.arithmetic_left else BUILT_IN

    def placement(self) -> Placement:
        """Return which ops delegates took and which the runtime runs itself."""
        return placement_of(self._interpreter._get_ops_details(), (self.output.index,))

    def run(self, z_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return WT, TC, ET (3, X, Y) of a slice (X, Y, 4) of z-scores."""
        return self.regions(self.invoke(self.prepare(z_scores)))

    def _check(self, model: Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
        if tensor.shape != shape or tensor.dtype not in (np.int8, np.float32):
            raise GliosliceError(
                f"{model}: its {name} is {tensor.dtype} {tensor.shape}, "
                f"int8 or float32 {shape} was expected; it is no network of this kit"
            )


def installed_runtime() -> tuple[str, ModuleType]:
    """Return name and version of the runtime that is installed, and its interpreter's module.

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


def _delegate(module: ModuleType, library: str) -> Any:
    try:
        ctypes.CDLL(library).tflite_plugin_create_delegate  # noqa: B018
    except (OSError, AttributeError) as error:
        raise GliosliceError(
            f"the delegate {library} could not be loaded ({error}); install it, for a Coral stick "
            "as the package libedgetpu1-std"
        ) from None
    try:
        return module.load_delegate(library)
    except ValueError as error:
        raise GliosliceError(
            f"the delegate {library} finds no accelerator ({' '.join(str(error).split())}); plug "
            "it in, and see that this user may open it"
        ) from None


def _only(model: Path, name: str, details: list[dict[str, Any]]) -> Tensor:
    if len(details) != 1:
        raise GliosliceError(f"{model}: has {len(details)} {name}s, one was expected")
    scale, zero_point = details[0]["quantization"]
    return Tensor(
        int(details[0]["index"]),
        tuple(int(n) for n in details[0]["shape"]),
        np.dtype(details[0]["dtype"]),
        float(scale),
        int(zero_point),
    )
