"""The settings of a run."""

import argparse
import math
from dataclasses import dataclass, fields
from typing import Any

from glioslice.errors import GliosliceError
from glioslice.preprocessing import WINDOW

CROP_STEP = 32
"""Pixels: a network of five levels whose first convolution halves a crop divides it by so much."""


@dataclass(frozen=True)
class Recipe:
    """Every hyper-parameter of a run; `--set NAME=VALUE` changes any."""

    epochs: int = 36
    steps: int = 250  # batches an epoch
    batch: int = 16
    crop: int = 128  # pixels; of a slice's 160 x 192 those around the tumour teach most
    tumour: float = 0.6  # share of slices that must hold tumour; about half of a brain's do
    centred: float = 0.5  # share of their crops that are centred on it, not anywhere in the window
    lesions: float = 0.25  # share of a batch that is canvases of lesion cubes, where they are given
    taught: float = 0.5  # share of the target that is the teachers' word, where there are any
    rate: float = 3e-3  # peak; AdamW on 50,000 weights with batch norm stands it
    warmup: float = 0.03  # share of the run in which the rate rises from 0
    decay: float = 1e-4
    average: float = 0.999  # of the weights' running average that a step keeps
    judge_every: int = 6  # epochs between looks at the held-out cases, which choose nothing
    seed: int = 0


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """Return the recipe that the command line asks for.

    Raises GliosliceError if a field is unknown or cannot have that value.
    """
    asked: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("epochs", "steps", "batch", "rate", "seed")
    }
    kinds = {field.name: type(getattr(Recipe, field.name)) for field in fields(Recipe)}
    for word in arguments.set:
        name, _, value = word.partition("=")
        if name not in kinds:
            raise GliosliceError(f"--set {word}: a recipe has {', '.join(kinds)}")
        try:
            asked[name] = kinds[name](value)
        except ValueError:
            raise GliosliceError(f"--set {word}: {name} is {kinds[name].__name__}") from None
    recipe = Recipe(**asked)
    if min(recipe.epochs, recipe.steps, recipe.batch, recipe.judge_every) < 1:
        raise GliosliceError("epochs, steps, batch and judge_every must be at least 1")
    if recipe.crop % CROP_STEP or not CROP_STEP <= recipe.crop <= min(WINDOW):
        raise GliosliceError(
            f"--set crop={recipe.crop}: a multiple of {CROP_STEP} up to {min(WINDOW)}"
        )
    return recipe


def rate_at(recipe: Recipe, step: int) -> float:
    """Return the learning rate at `step`: linear warm-up, then a cosine to zero."""
    whole = recipe.epochs * recipe.steps
    warm = max(1, round(recipe.warmup * whole))
    if step < warm:
        return recipe.rate * (step + 1) / warm
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, whole - warm)))
