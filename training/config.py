"""The hyper-parameters of a training run."""

import argparse
import math
from dataclasses import dataclass, fields
from typing import Any

from glioslice.errors import GliosliceError
from glioslice.preprocessing import WINDOW

CROP_STEP = 32
"""A network of five levels with a strided first convolution divides its input by 32 pixels."""


SHARES = (
    "tumour", "centred", "low_grade", "lesions", "slices", "phantom_share", "taught", "resampled",
    "thick", "misregistered", "missing",
)  # fmt: skip
"""Fields that are shares or probabilities."""


FINE_TUNING_RATE = 3e-4
"""The peak learning rate with --from, a tenth of a new network's.

The weights were trained down to a rate of 0. In a trial (compact, 8 patients, 240 batches) the mean
Dice of 8 other patients was .819 before, .811 at 1e-4, .820 at 3e-4 and .819 at 3e-3: of two rates
that do no harm, the lower one."""


@dataclass(frozen=True)
class TrainingConfig:
    """All hyper-parameters of a run; `--set NAME=VALUE` changes any of them."""

    epochs: int = 40  # 20,000 steps
    steps: int = 500  # batches per epoch; volumes are resampled before each epoch
    batch: int = 16
    crop: int = 128  # pixels; the part of a 160 x 192 slice around the tumour teaches most
    tumour: float = 0.6  # share of slices that must hold tumour; about half of a brain's do
    centred: float = 0.5  # share of their crops that are centred on tumour, not placed anywhere
    low_grade: float = 0.33  # share of draws from low-grade patients, if grades are given: 11 of 60
    lesions: float = (
        0.1875  # share of a batch that shows patches of lesion cubes, if given: 3 of 16
    )
    slices: float = (
        0.1875  # share of a batch from single slices, if given: whole heads, 109 patients
    )
    phantom_share: float = 0.25  # share of a batch from synthetic heads, if given: 4 of 16
    slice_jitter: float = 0.15  # of their spread (log) and level: z-scores are over the slice alone
    resampled: float = 0.65  # share of volumes' slices resampled; a third stays as BraTS has them
    thick: float = 0.5  # share of those in which one to four modalities are thick slices
    thick_from: float = 2.0  # mm; thinner is no more than interpolation
    thick_to: float = 6.0  # mm; clinical series have 5 to 6
    misregistered: float = 0.5  # share of a resampled slice's modalities that are misregistered
    misregistered_shift: float = 1.5  # voxels, at most; what rigid registration leaves
    misregistered_turn: float = 2.0  # degrees, at most
    missing: float = 0.4  # share of crops that lack modalities (augment.MISSING)
    taught: float = 0.5  # weight of the teachers' probabilities in the target, but in phantoms
    rate: float = 3e-3  # peak; AdamW tolerates it for 50,000 weights with batch norm
    warmup: float = 0.03  # share of the run in which the learning rate rises from 0
    decay: float = 1e-4
    fixed_norms: int = 0  # 1: batch norms keep the means and variances of the start
    average: float = 0.999  # decay of the running average of the weights
    judge_every: int = 5  # epochs between validations; they are logged and select nothing
    seed: int = 0


def parse_config(arguments: argparse.Namespace) -> TrainingConfig:
    """Return the config that the command line describes.

    Raises GliosliceError if a field is unknown or its value is invalid.
    """
    values: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("epochs", "steps", "batch", "seed")
    }
    values["rate"] = peak_rate(arguments)
    types = {
        field.name: type(getattr(TrainingConfig, field.name)) for field in fields(TrainingConfig)
    }
    for setting in arguments.set:
        name, _, value = setting.partition("=")
        if name not in types:
            raise GliosliceError(f"--set {setting}: unknown field; there are {', '.join(types)}")
        try:
            values[name] = types[name](value)
        except ValueError:
            raise GliosliceError(
                f"--set {setting}: {name} must be of type {types[name].__name__}"
            ) from None
    config = TrainingConfig(**values)
    if min(config.epochs, config.steps, config.batch, config.judge_every) < 1:
        raise GliosliceError("epochs, steps, batch and judge_every must be at least 1")
    for name in SHARES:
        if not 0 <= getattr(config, name) <= 1:
            raise GliosliceError(f"--set {name}={getattr(config, name)}: must be from 0 to 1")
    phantom_share = config.phantom_share if arguments.phantoms else 0
    if config.lesions + config.slices + phantom_share > 1:
        raise GliosliceError(
            "lesions, slices and phantom_share are shares of one batch: at most 1 together"
        )
    if not 1 <= config.thick_from <= config.thick_to:
        raise GliosliceError("thick_from must be at least 1 and at most thick_to")
    if config.crop % CROP_STEP or not CROP_STEP <= config.crop <= min(WINDOW):
        raise GliosliceError(
            f"--set crop={config.crop}: must be a multiple of {CROP_STEP}, at most {min(WINDOW)}"
        )
    return config


def peak_rate(arguments: argparse.Namespace) -> float:
    """Return --rate, or the default for a new network or for fine-tuning."""
    if arguments.rate is not None:
        return float(arguments.rate)
    return FINE_TUNING_RATE if arguments.start else TrainingConfig.rate


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Return the learning rate at `step`: linear warm-up, then a cosine to zero."""
    total = config.epochs * config.steps
    warm = max(1, round(config.warmup * total))
    if step < warm:
        return config.rate * (step + 1) / warm
    return config.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
