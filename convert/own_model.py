"""A network of this kit with its card, as a source of TFLite files."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.artifacts import File, stage
from convert.calibration import Roles, calibration, more_calibration, probes
from convert.export import float_files, with_thresholds
from convert.pipeline import Slices
from convert.verify.acceptance import Verdict, judge
from convert.verify.graph_checks import check_graph, check_layers, check_ops
from convert.verify.parity import blocks_of, check_faithful, torch_steps
from glioslice.model_card import Card
from training.network import Network

FLOAT_PROBES = 2
"""Slices on which the float file is compared with torch: a layer misread is misread on each."""


@dataclass(frozen=True)
class Trained:
    """A network with its card, and whom it is calibrated on and judged by.

    `thresholds` are folded into its last bias. `shipped` are files to compare with, by name.
    """

    network: Network
    card: Card
    thresholds: tuple[float, ...]
    roles: Roles
    shipped: Mapping[str, Path]

    @property
    def name(self) -> str:
        """The card's."""
        return self.card.name

    def calibration(self) -> Slices:
        """Return some slices of each case that calibrates."""
        return calibration(self.roles.calibrated, self.card.clip)

    def more(self) -> Slices:
        """Return more and better chosen slices of the same cases."""
        return more_calibration(self.roles.calibrated, self.card.clip)

    def probes(self) -> Slices:
        """Return slices of the cases that judge."""
        return probes(self.roles.judged)

    def floats(self) -> tuple[dict[str, bytes], dict[int, str]]:
        """Return the float files, of which each layer is that of the network."""
        check_layers(self.network)
        final = with_thresholds(self.network, self.thresholds)
        floats = float_files(final, self.card.window, self.calibration())
        some = self.probes()[:FLOAT_PROBES]
        names = check_faithful(blocks_of(torch_steps(final, some), floats["fp32"], some))
        check_ops(floats["fp32"], names)
        return floats, names

    def judged(self, files: Sequence[File]) -> dict[str, Verdict]:
        """Return what files are worth on whole cases, run by the engine of the board."""
        for file in files:
            window, inputs = self.card.window, self.network.config.inputs
            check_graph(file.content, file.precision, window, inputs)
        with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:
            staged = stage(Path(folder), self.card, files)
            return judge(staged, self.shipped, self.network, self.card, self.roles.judged)

    def account(self) -> dict[str, Any]:
        """Return who calibrated and who judged."""
        seen = any(subject.digest in self.card.trained_on for subject in self.roles.judged)
        return {
            "calibrated_on": {
                "what": "cases" if self.roles.calibrated[0].digest else "phantoms",
                "names": [subject.name for subject in self.roles.calibrated],
                "slices": sum(len(subject.slices) for subject in self.roles.calibrated),
            },
            "judged_on": self.roles.judged_on | {"seen_in_training": seen},
        }
