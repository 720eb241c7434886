"""An external network, from an ONNX file or a torch module, as the source of a conversion.

Each of its outputs is a yes or a no: above a threshold or not. If its sample images have masks, the
gate compares Dice. Otherwise it compares agreement, the share of pixels at which every output is on
the same side of the threshold as the network's own.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convert.artifacts import ModelFile
from convert.calibration import (
    SPLIT,
    Floats,
    InputShape,
    SampleImages,
    extended_images,
    spread,
    usual_images,
)
from convert.export import convert_onnx, export_onnx
from convert.onnx_model import make_runner, onnx_steps, prepare_onnx, read_onnx
from convert.onnx_rewrites import ChannelsLast, rewrite
from convert.tflite.interpreter import output_values, snr
from convert.tflite.reader import PORTABLE_CUSTOM
from convert.verify.acceptance import Evaluation, Limits
from convert.verify.graph_checks import check_ends, check_nodes, read_graph
from convert.verify.parity import MIN_SNR, match_blocks
from glioslice.errors import GliosliceError
from glioslice.metrics import dice

MAX_PROBES, FLOAT_PROBES = 8, 2
"""Images on which layers are compared: int8 with float, and float with the network."""


@dataclass(frozen=True, eq=False)
class ExternalNetwork:
    """A network, a function that runs it, and its ONNX model, ready for conversion.

    `run` takes (1, *shape) and returns the output, (1, K) or (1, K, H', W'). `channels_last`
    is whether input and output of the author's network have their channels last.
    """

    name: str
    shape: InputShape
    model: Any
    run: Callable[[Floats], Floats]
    channels_last: ChannelsLast


def load_onnx(path: Path, shape: InputShape | None) -> ExternalNetwork:
    """Return the network of an ONNX file, run by ONNX Runtime.

    `shape` is needed where the file leaves sizes open. Raises GliosliceError if it is not an ONNX
    file, or not one that can be converted.
    """
    try:
        model, sizes = prepare_onnx(read_onnx(path), shape)
        return _external_network(path.stem, model, sizes, _checked(make_runner(model), sizes))
    except GliosliceError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise GliosliceError(f"{where}{error}") from None


def wrap_module(network: nn.Module, shape: InputShape, name: str) -> ExternalNetwork:
    """Return a torch module as a network that takes (1, *shape), put into evaluation mode.

    Raises GliosliceError if its weights are not finite or it cannot be converted.
    """
    import onnx

    network = network.eval()
    for key, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise GliosliceError(f"{name}: {key} holds NaN or infinite weights")

    @torch.no_grad()
    def run(batch: Floats) -> Floats:
        output = network(torch.from_numpy(np.ascontiguousarray(batch)))
        if not isinstance(output, Tensor):
            raise GliosliceError(
                f"it returns {type(output).__name__}; it must return a single tensor"
            )
        return np.asarray(output.numpy())

    try:
        checked = _checked(run, shape)
        model, _ = prepare_onnx(onnx.ModelProto.FromString(export_onnx(network, shape)), shape)
        return _external_network(name, model, shape, checked)
    except GliosliceError as error:
        raise GliosliceError(f"{name}: {error}") from None


def _external_network(
    name: str, model: Any, sizes: InputShape, run: Callable[[Floats], Floats]
) -> ExternalNetwork:
    """Return a network with channels first, whatever `run` and the prepared `model` have."""
    rewritten, channels_last = rewrite(model)

    def run_channels_first(batch: Floats) -> Floats:
        output = run(np.moveaxis(batch, 1, -1) if channels_last.input else batch)
        return np.moveaxis(output, -1, 1) if channels_last.output else output

    shape = (sizes[2], sizes[0], sizes[1]) if channels_last.input else sizes
    return ExternalNetwork(name, shape, rewritten, run_channels_first, channels_last)


def import_module_network(path: str) -> tuple[nn.Module, str]:
    """Return the network that `path`, package.module:factory, makes, and a name for it.

    A factory takes no arguments; it may be a torch module itself. Modules of the working directory
    are found too. Raises GliosliceError if it cannot be imported or makes no torch module.
    """
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so as to hide nothing
    try:
        found: Any = getattr(import_module(module), name)
    except Exception as error:  # importing runs whatever the module holds
        raise GliosliceError(
            f"{path}: cannot be imported ({type(error).__name__}: {error}); expected "
            "package.module:factory"
        ) from error
    try:
        network = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        raise GliosliceError(
            f"{path}: making the network failed ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(network, nn.Module):
        raise GliosliceError(f"{path}: makes {type(network).__name__}, not a torch module")
    return network, name.rpartition(".")[2]


def _checked(run: Callable[[Floats], Floats], shape: InputShape) -> Callable[[Floats], Floats]:
    """Return `run` once it is known to take `shape` and to return one batch of numbers."""
    try:
        output = run(np.zeros((1, *shape), np.float32))
    except GliosliceError:
        raise
    except Exception as error:  # a network may raise anything
        raise GliosliceError(
            f"it does not take (1, {', '.join(map(str, shape))}) ({type(error).__name__}: {error});"
            " is --input-shape right?"
        ) from error
    if output.dtype != np.float32 or output.ndim not in (2, 4) or output.shape[0] != 1:
        raise GliosliceError(
            f"it returns {output.dtype} of {output.shape}; expected float32 of (1, outputs) or "
            "(1, outputs, rows, columns)"
        )
    return run


@dataclass(frozen=True, eq=False)
class ExternalModel:
    """A network with its sample images.

    `expected` (N, K, ...) is the network's output for the images that evaluate. Outputs above
    `threshold` count as yes. `warnings` name costly layers (`convert.verify.graph_checks`).
    """

    network: ExternalNetwork
    samples: SampleImages
    threshold: float
    expected: Floats
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the ONNX file, or of the module's factory."""
        return self.network.name

    def calibration_slices(self) -> Floats:
        """Return a third of the calibration images."""
        return usual_images(self.samples.calibration)

    def extended_slices(self) -> Floats:
        """Return all calibration images, or the brightest and others if there are many."""
        return extended_images(self.samples.calibration)

    def probe_slices(self) -> Floats:
        """Return some of the images that evaluate."""
        return np.stack(spread(list(self.samples.evaluation), MAX_PROBES))

    def float_files(self) -> tuple[dict[str, bytes], dict[int, str]]:
        """Return the float files, whose output was found to be that of the network."""
        files = convert_onnx(self.network.model.SerializeToString(), self.calibration_slices())
        _check_portable(files["fp32"])
        probes = self.samples.evaluation[:FLOAT_PROBES]
        blocks = match_blocks(onnx_steps(self.network.model, probes), files["fp32"], probes)
        matched = [block for block in blocks if block.snr >= MIN_SNR]
        expected = self.expected[:FLOAT_PROBES]
        ratio = snr(expected, match_layout(output_values(files["fp32"], probes), expected))
        if not ratio >= MIN_SNR:
            last = f"; the last layer with equal values is {matched[-1].name}" if matched else ""
            raise GliosliceError(
                f"the float file does not compute the network: its output matches at {ratio:.0f} "
                f"dB, at least {MIN_SNR:.0f} dB are required{last}"
            )
        return files, {block.tensor: block.name for block in matched}

    def evaluate(self, files: Sequence[ModelFile]) -> dict[str, Evaluation]:
        """Return the scores of files on the images that evaluate."""
        expected = self.expected > self.threshold
        evaluations = {}
        for file in files:
            channels, rows, columns = self.network.shape
            check_ends(read_graph(file.content), file.precision, (1, rows, columns, channels))
            output = output_values(file.content, self.samples.evaluation)
            found = match_layout(output, self.expected) > self.threshold
            agreement = round(float((found == expected).all(axis=1).mean()), 6)
            evaluations[file.name] = Evaluation(self.dice_scores(found), agreement)
        return evaluations

    def describe(self) -> dict[str, Any]:
        """Return sizes, threshold and the split of the images, for `report.json`."""
        samples = self.samples
        return {
            "input": list(self.network.shape),
            "output": list(self.expected.shape[1:]),
            "threshold": self.threshold,
            "known": list(self.warnings),
            "calibrated_on": {"what": samples.name, "slices": len(self.calibration_slices())},
            "judged_on": {
                "what": samples.name,
                "slices": len(self.expected),
                "masks": samples.masks is not None,
                "split": SPLIT,
            },
        }

    def dice_scores(self, found: NDArray[np.bool_]) -> dict[str, float] | None:
        """Return each output's Dice over all images together and the mean; None without masks."""
        if self.samples.masks is None:
            return None
        truth = self.samples.masks[self.samples.evaluation_indices]
        scores = [dice(found[:, k], truth[:, k]) for k in range(truth.shape[1])]
        each = {str(k): round(score, 4) for k, score in enumerate(scores)}
        return each | {"mean": round(sum(scores) / len(scores), 4)}


def make_external_model(
    network: ExternalNetwork, samples: SampleImages, threshold: float, limits: Limits
) -> ExternalModel:
    """Return a network with its sample images.

    Raises GliosliceError if the network has unsupported layers, does not take the images, or could
    not be distinguished from a network whose output is constant.
    """
    warnings = check_nodes(network.model)
    samples = _match_order(samples, network)
    if samples.shape != network.shape:
        raise GliosliceError(
            f"{samples.name}: images are of {samples.shape}, {network.name} takes "
            f"{network.shape} (channels, rows, columns)"
        )
    outputs = [network.run(samples.images[i : i + 1]) for i in samples.evaluation_indices]
    source = ExternalModel(network, samples, threshold, np.concatenate(outputs), warnings)
    if not np.isfinite(source.expected).all():
        raise GliosliceError(f"{network.name} returns NaN or infinite values on {samples.name}")
    if samples.masks is None:
        _check_varied(source, limits)
    else:
        _check_masks(source, samples.masks, limits)
    return source


def _match_order(samples: SampleImages, network: ExternalNetwork) -> SampleImages:
    """Return images and masks with channels first where the network's own order is channels last.

    Images that have channels first already are returned as they are.
    """
    channels, rows, columns = network.shape
    images, masks = samples.images, samples.masks
    if network.channels_last.input and samples.shape == (rows, columns, channels):
        images = np.moveaxis(images, -1, 1)
    if network.channels_last.output and masks is not None:
        masks = np.moveaxis(masks, -1, 1)
    return replace(samples, images=images, masks=masks)


def match_layout(output: Floats, expected: Floats) -> Floats:
    """Return outputs of a TFLite file, channels last or not, in the order of `expected`.

    Where both orders have its shape, the nearer one is taken. Raises GliosliceError if none has.
    """
    orders = [output, np.moveaxis(output, -1, 1)] if output.ndim == 4 else [output]
    fitting = [order for order in orders if order.shape == expected.shape]
    if not fitting:
        raise GliosliceError(f"a file returns {output.shape[1:]}, the network {expected.shape[1:]}")
    return min(fitting, key=lambda order: float(((order - expected) ** 2).sum()))


def _check_varied(source: ExternalModel, limits: Limits) -> None:
    """Check that a file with a constant output would fail the gate."""
    decided = np.moveaxis(source.expected > source.threshold, 1, -1)
    patterns = np.packbits(decided.reshape(-1, decided.shape[-1]), axis=1)
    share = np.unique(patterns, axis=0, return_counts=True)[1].max() / len(patterns)
    if share >= limits.min_agreement:
        raise GliosliceError(
            f"{source.name} gives the same result (above {source.threshold:g} or not) at "
            f"{share:.2%} of all pixels of {source.samples.name}, so a file with a constant "
            "output would pass; add masks, or use other images, another --threshold or "
            "--min-agreement"
        )


def _check_masks(source: ExternalModel, masks: NDArray[np.bool_], limits: Limits) -> None:
    """Check that the network itself scores well enough on the masks for a drop to show."""
    if masks.shape[1:] != source.expected.shape[1:]:
        raise GliosliceError(
            f"{source.samples.name}: masks are of {masks.shape[1:]}, {source.name} returns "
            f"{source.expected.shape[1:]} (outputs, rows, columns)"
        )
    own = source.dice_scores(source.expected > source.threshold) or {"mean": 0.0}
    empty = not masks[source.samples.evaluation_indices].any()
    if empty or own["mean"] <= limits.max_drop:
        why = (
            "the masks of the evaluation images are empty"
            if empty
            else f"the network's own Dice is {own['mean']:g}"
        )
        raise GliosliceError(
            f"{source.name} cannot be evaluated with {source.samples.name}: {why}; do the masks "
            "belong to these outputs and to --threshold?"
        )


def _check_portable(fp32: bytes) -> None:
    """Check that the file holds no TensorFlow op, which no TFLite runtime of a board has."""
    names = {op.name for op in read_graph(fp32).ops}
    tensorflow_ops = sorted(name for name in names if name.startswith(PORTABLE_CUSTOM.decode()))
    if tensorflow_ops:
        raise GliosliceError(
            f"TFLite has no op for {', '.join(tensorflow_ops)}; use other layers in the network"
        )
