"""A network of glioslice with its card: the source of a conversion scored on whole cases."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.artifacts import ModelFile, stage_files
from convert.calibration import Roles, calibration_slices, extended_slices, probe_slices
from convert.export import export_float_files, fold_thresholds
from convert.quantization import Slices
from convert.verify.acceptance import Evaluation, evaluate_files
from convert.verify.graph_checks import check_graph, check_layers, check_ops
from convert.verify.parity import check_parity, match_blocks, torch_steps
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.model_card import CARD, Card
from training.network import Network

FLOAT_PROBES = 2
"""Slices on which the float file is compared with torch: a misread layer differs on every slice."""


@dataclass(frozen=True)
class OwnModel:
    """A network with its card, and the cases that calibrate and evaluate it.

    `thresholds` are folded into its last bias. `references` are files to compare with, by name.
    """

    network: Network
    card: Card
    thresholds: tuple[float, ...]
    roles: Roles
    references: Mapping[str, Path]

    @property
    def name(self) -> str:
        """The card's name."""
        return self.card.name

    def calibration_slices(self) -> Slices:
        """Return a few slices of each calibration case."""
        return calibration_slices(self.roles.calibration, self.card.clip)

    def extended_slices(self) -> Slices:
        """Return more slices of the same cases, chosen for large values."""
        return extended_slices(self.roles.calibration, self.card.clip)

    def probe_slices(self) -> Slices:
        """Return slices of the evaluation cases."""
        return probe_slices(self.roles.evaluation)

    def float_files(self) -> tuple[dict[str, bytes], dict[int, str]]:
        """Return the float files, in which every layer of the network was found again."""
        check_layers(self.network)
        final = fold_thresholds(self.network, self.thresholds)
        files = export_float_files(final, self.card.window, self.calibration_slices())
        probes = self.probe_slices()[:FLOAT_PROBES]
        names = check_parity(match_blocks(torch_steps(final, probes), files["fp32"], probes))
        check_ops(files["fp32"], names)
        return files, names

    def evaluate(self, files: Sequence[ModelFile]) -> dict[str, Evaluation]:
        """Return the scores of files on whole cases, run by the engine of the board."""
        for file in files:
            window, inputs = self.card.window, self.network.config.inputs
            check_graph(file.content, file.precision, window, inputs)
        with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:
            staged = stage_files(Path(folder), self.card, files)
            return evaluate_files(
                staged, self.references, self.network, self.card, self.roles.evaluation
            )

    def describe(self) -> dict[str, Any]:
        """Return which cases calibrated and which evaluated, for `report.json`."""
        roles = self.roles
        return {
            "calibrated_on": {
                "what": "cases" if roles.calibration[0].digest else "phantoms",
                "names": [case.name for case in roles.calibration],
                "slices": sum(len(case.slices) for case in roles.calibration),
            },
            "judged_on": roles.describe_evaluation() | {"seen_in_training": bool(self.seen_cases)},
        }

    @property
    def seen_cases(self) -> tuple[str, ...]:
        """The names of the evaluation cases that the network was trained on."""
        trained_on = self.card.trained_on
        return tuple(case.name for case in self.roles.evaluation if case.digest in trained_on)


def thresholds_of(card: Card) -> tuple[float, ...]:
    """Return the card's thresholds in the order of REGIONS."""
    try:
        thresholds = card.content["output"]["thresholds"]
        return tuple(float(thresholds[region]) for region in REGIONS)
    except (KeyError, TypeError, ValueError):
        raise GliosliceError(
            f"{CARD} of {card.name}: output.thresholds must hold a number for each of "
            f"{', '.join(REGIONS)}"
        ) from None
