"""The array that a network which is not ours is calibrated on and judged by.

A file `.npy` holds images (N, C, H, W) as the network takes them, an `.npz` those as `images` and,
where it has them, `masks` (N, K, H', W') of the network's outputs. The first three quarters
calibrate and the last quarter judges: neighbours often come from one patient, and interleaved they
would be on both sides.

A network that is not ours, as it came: an ONNX file, or a torch module that a function makes.

A network that is not ours, as a source of TFLite files.

Its outputs are yes or no, above a threshold or not. Where its examples have masks, Dice is gated;
else the share of pixels at which all outputs are on the side on which the network itself has them.
"""

import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convert.artifacts import File
from convert.calibration import spread
from convert.export import float_files_of, onnx_of
from convert.onnx_model import Floats, Shape, onnx_steps, prepared, read_onnx, runner
from convert.tflite.interpreter import outputs_of, snr
from convert.tflite.reader import PORTABLE_CUSTOM
from convert.verify.acceptance import Limits, Verdict
from convert.verify.graph_checks import check_ends, check_nodes, read_graph
from convert.verify.parity import LIMIT, blocks_of
from glioslice.errors import GliosliceError
from glioslice.metrics import dice

FEWEST = 8
"""Images: six calibrate, two judge."""

MOST_USUAL, MOST, MOST_JUDGED = 256, 768, 64
"""Images: at first, on the ladder, and of those that judge; as many as of 32 cases of ours."""

SPLIT = "the first three quarters calibrate, the last quarter judges"


@dataclass(frozen=True, eq=False)
class Examples:
    """Images (N, C, H, W), and masks (N, K, H', W') or None."""

    name: str
    images: Floats
    masks: NDArray[np.bool_] | None

    @property
    def shape(self) -> Shape:
        """Channels, rows and columns of an image."""
        _, channels, rows, columns = self.images.shape
        return channels, rows, columns

    @property
    def calibrating(self) -> Floats:
        """Those of the first three quarters, (N, H, W, C)."""
        return _last(self.images[: self._split])

    @property
    def judging(self) -> NDArray[np.intp]:
        """Which images judge: of the last quarter, evenly spaced."""
        return np.array(spread(range(self._split, len(self.images)), MOST_JUDGED))

    @property
    def judged(self) -> Floats:
        """Those, (N, H, W, C)."""
        return _last(self.images[self.judging])

    @property
    def _split(self) -> int:
        return 3 * len(self.images) // 4


def read_examples(path: Path) -> Examples:
    """Return what a file `.npy` or `.npz` holds.

    Raises GliosliceError if it is none, or its images are too few, not finite or not of four
    dimensions, or its masks are not binary or of another number.
    """
    try:
        found = np.load(path, allow_pickle=False)
        arrays = {"images": found} if isinstance(found, np.ndarray) else dict(found)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise GliosliceError(f"{path}: no .npy or .npz file of numbers ({error})") from None
    if "images" not in arrays:
        raise GliosliceError(f"{path}: holds {', '.join(arrays) or 'nothing'}, but no 'images'")
    images, masks = arrays["images"], arrays.get("masks")
    if images.ndim != 4 or images.dtype.kind != "f":
        raise GliosliceError(
            f"{path}: images are {images.dtype} of {images.shape}; expected float32 of (number, "
            "channels, rows, columns), normalised as for training"
        )
    if len(images) < FEWEST:
        raise GliosliceError(f"{path}: holds {len(images)} images; at least {FEWEST} are needed")
    if not np.isfinite(images).all():
        raise GliosliceError(f"{path}: holds NaN or infinite values; leave those images out")
    if masks is not None:
        if masks.ndim != 4 or len(masks) != len(images) or not np.isin(masks, (0, 1)).all():
            raise GliosliceError(
                f"{path}: masks are {masks.dtype} of {masks.shape}; expected {len(images)} of "
                "(outputs, rows, columns) that hold 0 and 1"
            )
        masks = masks.astype(bool)
    return Examples(path.name, images.astype(np.float32), masks)


def usual(images: Floats) -> Floats:
    """Return a third of the images (N, H, W, C), evenly spaced, but not fewer than FEWEST."""
    return np.stack(spread(list(images), min(MOST_USUAL, max(FEWEST, len(images) // 3))))


def better(images: Floats) -> Floats:
    """Return up to MOST of the images, a half of them the brightest, as `convert.calibration` does."""
    if len(images) <= MOST:
        return images
    brightness = (images.astype(np.float64) ** 4).sum(axis=(1, 2, 3))
    chosen = set(np.argsort(-brightness, kind="stable")[: MOST // 2].tolist())
    chosen |= set(spread([i for i in range(len(images)) if i not in chosen], MOST - len(chosen)))
    return images[sorted(chosen)]


def _last(images: Floats) -> Floats:
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


@dataclass(frozen=True, eq=False)
class Original:
    """A network, how to run it, and its ONNX model, prepared for conversion.

    `run` takes (1, *shape) and gives its output, (1, K) or (1, K, H', W').
    """

    name: str
    shape: Shape
    model: Any
    run: Callable[[Floats], Floats]


def from_onnx(path: Path, shape: Shape | None) -> Original:
    """Return the network of an ONNX file, run by ONNX Runtime; `shape` where the file has none.

    Raises GliosliceError if it is no ONNX file, or not one that can be converted.
    """
    try:
        model, sizes = prepared(read_onnx(path), shape)
        return Original(path.stem, sizes, model, _checked(runner(model), sizes))
    except GliosliceError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise GliosliceError(f"{where}{error}") from None


def from_module(path: str, shape: Shape) -> Original:
    """Return the network that `path`, package.module:factory, makes; torch runs it.

    A factory takes no arguments; it may be a module itself. Modules of the working directory are
    found too. Raises GliosliceError if there is none, it fails, or what it makes is no network
    that can be converted.
    """
    import onnx

    network = _made(path).eval()
    for name, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise GliosliceError(f"--module {path}: {name} holds NaN or infinite weights")

    @torch.no_grad()
    def run(batch: Floats) -> Floats:
        made = network(torch.from_numpy(np.ascontiguousarray(batch)))
        if not isinstance(made, Tensor):
            raise GliosliceError(f"it gives {type(made).__name__}; let it give one tensor")
        return np.asarray(made.numpy())

    try:
        checked = _checked(run, shape)
        model, _ = prepared(onnx.ModelProto.FromString(onnx_of(network, shape)), shape)
    except GliosliceError as error:
        raise GliosliceError(f"--module {path}: {error}") from None
    return Original(path.partition(":")[2].rpartition(".")[2], shape, model, checked)


def _made(path: str) -> nn.Module:
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so as to hide nothing
    try:
        found: Any = getattr(import_module(module), name)
    except Exception as error:  # importing runs whatever the module holds
        raise GliosliceError(
            f"--module {path}: cannot be imported ({type(error).__name__}: {error}); expected "
            "package.module:factory"
        ) from error
    try:
        network = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        raise GliosliceError(
            f"--module {path}: making the network failed ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(network, nn.Module):
        raise GliosliceError(f"--module {path}: makes {type(network).__name__}, no torch module")
    return network


def _checked(run: Callable[[Floats], Floats], shape: Shape) -> Callable[[Floats], Floats]:
    """Return `run` once it is sure that it takes `shape` and gives one batch of numbers."""
    try:
        made = run(np.zeros((1, *shape), np.float32))
    except GliosliceError:
        raise
    except Exception as error:  # a network may raise anything
        raise GliosliceError(
            f"it does not take (1, {', '.join(map(str, shape))}) ({type(error).__name__}: {error});"
            " is --input-shape right?"
        ) from error
    if made.dtype != np.float32 or made.ndim not in (2, 4) or made.shape[0] != 1:
        raise GliosliceError(
            f"it gives {made.dtype} of {made.shape}; expected float32 of (1, outputs) or "
            "(1, outputs, rows, columns)"
        )
    return run


MOST_PROBED, FLOAT_PROBES = 8, 2
"""Images on which layers are compared, int8 with float and float with the network."""


@dataclass(frozen=True, eq=False)
class Foreign:
    """A network with its examples; `wanted` (N, K, ...) is what it makes of those that judge.

    Outputs above `threshold` are yes. `notes` name layers that cost much (`convert.verify.graph_checks`).
    """

    original: Original
    examples: Examples
    threshold: float
    wanted: Floats
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's, or that of the function that makes the network."""
        return self.original.name

    def calibration(self) -> Floats:
        """Return a third of the images that calibrate."""
        return usual(self.examples.calibrating)

    def more(self) -> Floats:
        """Return all of them, or the brightest and others."""
        return better(self.examples.calibrating)

    def probes(self) -> Floats:
        """Return some of the images that judge."""
        return np.stack(spread(list(self.examples.judged), MOST_PROBED))

    def floats(self) -> tuple[dict[str, bytes], dict[int, str]]:
        """Return the float files, of which the output is that of the network."""
        floats = float_files_of(self.original.model.SerializeToString(), self.calibration())
        _check_ops(floats["fp32"])
        some = self.examples.judged[:FLOAT_PROBES]
        blocks = blocks_of(onnx_steps(self.original.model, some), floats["fp32"], some)
        found = [block for block in blocks if block.snr >= LIMIT]
        wanted = self.wanted[:FLOAT_PROBES]
        near = snr(wanted, arranged(outputs_of(floats["fp32"], some), wanted))
        if not near >= LIMIT:
            last = f"; the last layer that it computes alike is {found[-1].name}" if found else ""
            raise GliosliceError(
                f"the float file is not the network: its output is at {near:.0f} dB of what the "
                f"network gives, {LIMIT:.0f} are asked for{last}"
            )
        return floats, {block.tensor: block.name for block in found}

    def judged(self, files: Sequence[File]) -> dict[str, Verdict]:
        """Return what files are worth on the images that judge."""
        wanted = self.wanted > self.threshold
        verdicts = {}
        for file in files:
            channels, rows, columns = self.original.shape
            check_ends(read_graph(file.content), file.precision, (1, rows, columns, channels))
            made = arranged(outputs_of(file.content, self.examples.judged), self.wanted)
            found = made > self.threshold
            agreement = round(float((found == wanted).all(axis=1).mean()), 6)
            verdicts[file.name] = Verdict(self._dice(found), agreement)
        return verdicts

    def account(self) -> dict[str, Any]:
        """Return sizes, threshold and how the examples are split."""
        images = self.examples
        return {
            "input": list(self.original.shape),
            "output": list(self.wanted.shape[1:]),
            "threshold": self.threshold,
            "known": list(self.notes),
            "calibrated_on": {"what": images.name, "slices": len(self.calibration())},
            "judged_on": {
                "what": images.name,
                "slices": len(self.wanted),
                "masks": images.masks is not None,
                "split": SPLIT,
            },
        }

    def _dice(self, found: NDArray[np.bool_]) -> dict[str, float] | None:
        """Return the Dice of each output over all images together, and the mean."""
        if self.examples.masks is None:
            return None
        truth = self.examples.masks[self.examples.judging]
        scores = [dice(found[:, k], truth[:, k]) for k in range(truth.shape[1])]
        each = {str(k): round(score, 4) for k, score in enumerate(scores)}
        return each | {"mean": round(sum(scores) / len(scores), 4)}


def foreign(original: Original, examples: Examples, threshold: float, limits: Limits) -> Foreign:
    """Return a network with its examples.

    Raises GliosliceError if it has layers that are known to break, they do not go together, or the
    gate could not tell a good file from one that always says the same.
    """
    notes = check_nodes(original.model)
    if examples.shape != original.shape:
        raise GliosliceError(
            f"{examples.name}: images are of {examples.shape}, {original.name} takes "
            f"{original.shape} (channels, rows, columns)"
        )
    made = np.concatenate([original.run(examples.images[i : i + 1]) for i in examples.judging])
    source = Foreign(original, examples, threshold, made, notes)
    if not np.isfinite(made).all():
        raise GliosliceError(f"{original.name} gives NaN or infinite values on {examples.name}")
    if examples.masks is None:
        _check_varied(source, limits)
    else:
        _check_masks(source, examples.masks, limits)
    return source


def arranged(given: Floats, wanted: Floats) -> Floats:
    """Return outputs of a TFLite file, channels last or as they were, in the order of `wanted`.

    Where sizes are equal both fit: what is nearer is meant. Raises GliosliceError if none fits.
    """
    orders = [given, np.moveaxis(given, -1, 1)] if given.ndim == 4 else [given]
    fitting = [order for order in orders if order.shape == wanted.shape]
    if not fitting:
        raise GliosliceError(f"a file gives {given.shape[1:]}, the network {wanted.shape[1:]}")
    return min(fitting, key=lambda order: float(((order - wanted) ** 2).sum()))


def _check_varied(source: Foreign, limits: Limits) -> None:
    decided = np.moveaxis(source.wanted > source.threshold, 1, -1)
    patterns = np.packbits(decided.reshape(-1, decided.shape[-1]), axis=1)
    share = np.unique(patterns, axis=0, return_counts=True)[1].max() / len(patterns)
    if share >= limits.min_agreement:
        raise GliosliceError(
            f"{source.name} says the same at {share:.2%} of all places of {source.examples.name} "
            f"(above {source.threshold:g} or not), so a file that always says so would pass; judge "
            "it by masks, on other images, or with another --threshold or --min-agreement"
        )


def _check_masks(source: Foreign, masks: NDArray[np.bool_], limits: Limits) -> None:
    if masks.shape[1:] != source.wanted.shape[1:]:
        raise GliosliceError(
            f"{source.examples.name}: masks are of {masks.shape[1:]}, {source.name} gives "
            f"{source.wanted.shape[1:]} (outputs, rows, columns)"
        )
    own = source._dice(source.wanted > source.threshold) or {"mean": 0.0}
    empty = not masks[source.examples.judging].any()
    if empty or own["mean"] <= limits.max_drop:
        said = "nothing is in those that judge" if empty else f"its own Dice is {own['mean']:g}"
        raise GliosliceError(
            f"{source.name} cannot be judged by the masks of {source.examples.name}: {said}; are "
            "outputs and --threshold those that the masks are of?"
        )


def _check_ops(fp32: bytes) -> None:
    names = {op.name for op in read_graph(fp32).ops}
    foreign_ops = sorted(name for name in names if name.startswith(PORTABLE_CUSTOM.decode()))
    if foreign_ops:
        raise GliosliceError(
            f"TFLite has no op for {', '.join(foreign_ops)}; use others in the network"
        )
