"""Train a network on a folder of BraTS cases.

    python training/train.py --data ../shared/data/brats --out runs/compact
    python training/train.py --data DIR --out runs/ours --from models/compact     # fine-tune
    torchrun --nproc-per-node 2 training/train.py --data DIR --out runs/compact   # processes

RUN becomes a model folder: `<size>.safetensors` (the average of the weights), `card.json`, and
beside them `log.csv`, `tensorboard/` and `state.safetensors`, from which `--resume` goes on to the
same result.
"""

import argparse
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.model_card import CARD
from training.augment import augment
from training.checkpoint import load_model, trained_card, write_model
from training.config import Recipe, rate_at, recipe_of
from training.dataset import Slices, draw_slices, load_split
from training.distillation import Ensemble, case_dice, load_teachers
from training.distributed import Process, process
from training.geometry import warp
from training.lesion_patches import Lesions, canvases, lesion_patients, load_lesions
from training.loss import RegionLoss
from training.network import SIZES, Network, build, named_config
from training.run_log import Log, Row
from training.trainer import Learner, captured, new_learner, restore, save_state

DEFAULT_SIZE = "compact"


def main() -> None:
    """Read the command line and train."""
    parser = cli.parser(
        "Train a compact U-Net on the slices of BraTS cases.",
        "python training/train.py --data DIR --out runs/compact --size compact",
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of cases with masks")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument(
        "--size", help=f"{', '.join(sorted(SIZES))} or package.module:NAME; default: {DEFAULT_SIZE}"
    )
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="batches an epoch")
    parser.add_argument("--batch", type=int, default=Recipe.batch, help="crops a batch")
    parser.add_argument("--rate", type=float, default=Recipe.rate, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another field of Recipe"
    )
    parser.add_argument("--hold-out", default="0", help="patients to leave out: a number or names")
    parser.add_argument("--lesions", type=Path, metavar="NPZ", help="lesion cubes, for patches")
    parser.add_argument(
        "--patients", type=Path, metavar="CSV", help="which cubes are of which case"
    )
    parser.add_argument(
        "--teacher", type=Path, action="append", default=[], metavar="RUN",
        help="a model folder to learn from besides the labels; several: the mean of what they say",
    )  # fmt: skip
    parser.add_argument("--from", dest="start", type=Path, help="a model folder to fine-tune")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--cache", type=Path, default=Path("build/slices"), help="prepared slices")
    parser.add_argument("--wandb", action="store_true", help="log to Weights & Biases (offline)")
    cli.run(work, parser.parse_args())


@dataclass(frozen=True)
class Job:
    """One run: what is trained on what, and where it is written."""

    recipe: Recipe
    settings: dict[str, Any]  # what a resumed run must share with the one that was interrupted
    card: dict[str, Any]
    cases: list[Slices]
    lesions: Lesions | None
    held_out: list[Slices]
    teachers: Ensemble
    out: Path


def work(arguments: argparse.Namespace) -> None:
    """Train as the command line says."""
    out: Path = arguments.out
    recipe = recipe_of(arguments)
    torch.manual_seed(recipe.seed)
    started = load_model(arguments.start) if arguments.start else None
    if started:
        network, size = started[0], started[1].name
        if arguments.size not in (None, size):
            raise GliosliceError(f"--from {arguments.start} is a {size}, not a {arguments.size}")
    else:
        size, config = named_config(arguments.size or DEFAULT_SIZE)
        network = build(config)
    if (out / CARD).exists() and not arguments.resume:
        raise GliosliceError(f"{out}: holds a run or a model; add --resume or name another")
    cases, held_out = load_split(arguments.data, arguments.hold_out, recipe.seed, arguments.cache)
    lesions, cubes = cubes_of(arguments.lesions, arguments.patients, held_out)
    teachers = load_teachers(arguments.teacher, held_out)
    settings = asdict(recipe) | {
        "size": size,
        "cubes": cubes,
        "from": started[1].content["files"][f"{size}.safetensors"]["sha256"] if started else None,
        "teachers": teachers.entries,
        "cases": [{"case": c.case, "digest": c.digest} for c in cases],
    }
    before = started[1].content["training"]["cases"] if started else []
    card = trained_card(network, size, settings, held_out, [*before, *teachers.cases])
    job = Job(recipe, settings, card, cases, lesions, held_out, teachers, out)
    with process() as place:
        learner, rows = begin(job, network, place, arguments.resume)
        log = Log(out, rows, arguments.wandb, settings) if place.leads else None
        try:
            train(job, learner, place, len(rows), log)
        finally:
            if log is not None:
                log.close()


def cubes_of(
    file: Path | None, patients: Path | None, held_out: list[Slices]
) -> tuple[Lesions | None, dict[str, Any] | None]:
    """Return the lesion cubes, without those of held-out patients, and what the card says of them.

    Raises GliosliceError if there is a file of cubes, but nothing says whose they are.
    """
    if file is None:
        return None, None
    if patients is None:
        raise GliosliceError(
            "--lesions needs --patients CSV, so that held-out patients leave with their cubes"
        )
    whose = lesion_patients(patients)
    left_out = sorted(whose[case.case] for case in held_out if case.case in whose)
    lesions = load_lesions(file, set(left_out))
    kept = {"patients": len(lesions.patients), "left_out": left_out, "sha256": lesions.sha256}
    return lesions, kept


def begin(job: Job, network: Network, place: Process, resume: bool) -> tuple[Learner, list[Row]]:
    """Return the learner, and the rows of the epochs already done: none for a new run."""
    network.to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    job.teachers.to(place.device)
    learner = new_learner(network, job.recipe)
    rows = restore(job.out, learner, job.settings) if resume else []
    if place.leads:
        print(
            f"{job.card['name']}: {job.card['network']['parameters']:,} parameters, "
            f"{len(job.cases)} cases to train on, {len(job.held_out)} held out, "
            f"{place.count} x {place.device}, {len(rows)} of {job.recipe.epochs} epochs done",
            flush=True,
        )
    return learner, rows


def train(job: Job, learner: Learner, place: Process, done: int, log: Log | None) -> None:
    """Run the epochs; each ends with the state on disk."""
    recipe = job.recipe
    network = learner.network
    parallel = (
        DistributedDataParallel(network)
        if place.count > 1
        else captured(network, recipe.batch, recipe.crop, place)
    )
    for epoch in range(done + 1, recipe.epochs + 1):
        began = time.monotonic()
        loss = one_epoch(parallel, learner, job, epoch, place)
        if log is None:
            continue
        row: Row = {"epoch": epoch, "rate": rate_at(recipe, epoch * recipe.steps), "loss": loss}
        if job.held_out and (epoch % recipe.judge_every == 0 or epoch == recipe.epochs):
            row |= judge(learner.averaged, job.held_out, place)
        log.add(row)
        training = job.card["training"] | {"epochs_done": epoch}
        write_model(job.out, learner.averaged, job.card | {"training": training})
        save_state(job.out, learner, job.settings, log.rows)
        line = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
        print(f"{line}  {time.monotonic() - began:.0f} s", flush=True)


def one_epoch(
    network: torch.nn.Module, learner: Learner, job: Job, epoch: int, place: Process
) -> float:
    """Return the mean loss of an epoch. All randomness comes from seed, epoch and rank."""
    recipe = job.recipe
    generator = torch.Generator().manual_seed((recipe.seed * 10_000 + epoch) * 64 + place.rank)
    criterion, total = RegionLoss(), torch.zeros((), device=place.device)
    network.train()
    for step in range(recipe.steps):
        images, labels = crops(job, generator, place.device)
        for group in learner.optimiser.param_groups:
            group["lr"] = rate_at(recipe, (epoch - 1) * recipe.steps + step)
        with torch.autocast(place.device.type, torch.bfloat16, enabled=place.mixed):
            logits = network(images.contiguous(memory_format=torch.channels_last))
        taught = job.teachers.chances(images, place) if job.teachers.networks else None
        loss = criterion(logits, labels, taught, recipe.taught)
        learner.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        learner.optimiser.step()
        learner.average.update_parameters(learner.network)
        total += loss.detach()
    return total.item() / recipe.steps


def crops(job: Job, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a batch: augmented crops (B, 4, crop, crop), labels (B, crop, crop)."""
    recipe = job.recipe
    from_cubes = round(recipe.batch * recipe.lesions) if job.lesions else 0
    drawn = draw_slices(job.cases, recipe.batch - from_cubes, recipe, generator)
    images, labels, centres = (tensor.to(device) for tensor in drawn)
    images = images.permute(0, 3, 1, 2).float()  # (B, 4, 160, 192)
    images, labels = warp(images, labels, centres, (recipe.crop, recipe.crop), generator)
    if job.lesions and from_cubes:
        patches = canvases(job.lesions, from_cubes, recipe.crop, generator, device)
        images, labels = torch.cat([images, patches[0]]), torch.cat([labels, patches[1]])
    return augment(images, generator), labels


def judge(network: Network, cases: list[Slices], place: Process) -> Row:
    """Return the mean volume Dice of WT, TC, ET over cases, by the network in full precision."""
    place = replace(place, mixed=False)
    scores = [case_dice(Ensemble((network.eval(),)), case, place) for case in cases]
    return {name: sum(s[name] for s in scores) / len(scores) for name in scores[0]}


if __name__ == "__main__":
    main()
