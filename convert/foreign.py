"""A network that is not ours, as a source of TFLite files.

Its outputs are yes or no, above a threshold or not. Where its examples have masks, Dice is gated;
else the share of pixels at which all outputs are on the side on which the network itself has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.choosing import spread
from convert.examples import SPLIT, Examples, better, usual
from convert.export import float_files_of
from convert.faithful import LIMIT, blocks_of
from convert.gate import Limits
from convert.graph import check_ends, read_graph
from convert.judging import Verdict
from convert.known import check_nodes
from convert.onnx_file import Floats, onnx_steps
from convert.original import Original
from convert.products import File
from convert.reading import PORTABLE_CUSTOM
from convert.running import outputs_of, snr
from glioslice.errors import GliosliceError
from glioslice.metrics import dice

MOST_PROBED, FLOAT_PROBES = 8, 2
"""Images on which layers are compared, int8 with float and float with the network."""


@dataclass(frozen=True, eq=False)
class Foreign:
    """A network with its examples; `wanted` (N, K, ...) is what it makes of those that judge.

    Outputs above `threshold` are yes. `notes` name layers that cost much (`convert.known`).
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
