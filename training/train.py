"""Train a network on a folder of BraTS cases.

    python training/train.py --data ../shared/data/brats --out runs/compact
    python training/train.py --data DIR --out runs/ours --from models/compact     # fine-tune
    torchrun --nproc-per-node 2 training/train.py --data DIR --out runs/compact   # processes

RUN becomes a model folder: `<size>.safetensors`, `card.json`, and beside them `log.csv`,
`tensorboard/` and `state.safetensors`, from which `--resume` goes on to the same result.
"""

import argparse
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from glioslice import command
from glioslice.errors import GliosliceError
from glioslice.labels import to_labels
from glioslice.metrics import region_dice
from training.augment import augment
from training.cards import trained_card, write_model
from training.checkpoint import STATE, load_model, load_state, save_tensors
from training.dataset import Slices, batches, load_split
from training.log import Log, Row
from training.loss import RegionLoss
from training.network import SIZES, UNet
from training.process import Process, process


@dataclass(frozen=True)
class Recipe:
    """Every hyper-parameter of a run."""

    size: str = "compact"
    epochs: int = 60
    steps: int = 250  # batches an epoch: with 8 slices each, about half of 32 patients' slices
    batch: int = 8
    rate: float = 3e-3  # peak; AdamW on 50,000 weights with batch norm stands it
    warmup: float = 0.03  # share of the run in which the rate rises from 0
    decay: float = 1e-4
    judge_every: int = 5  # epochs between two looks at the held-out cases
    seed: int = 0


def main() -> None:
    """Read the command line and train."""
    parser = command.parser(
        "Train a compact U-Net on the slices of BraTS cases.",
        "python training/train.py --data DIR --out runs/compact --size compact",
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of cases with masks")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--size", choices=sorted(SIZES), help="default: compact")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="batches an epoch")
    parser.add_argument("--batch", type=int, default=Recipe.batch, help="slices a batch")
    parser.add_argument("--rate", type=float, default=Recipe.rate, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--hold-out", default="0", help="patients to leave out: a number or names")
    parser.add_argument("--from", dest="start", type=Path, help="a model folder to fine-tune")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--cache", type=Path, default=Path("build/slices"), help="prepared slices")
    parser.add_argument("--wandb", action="store_true", help="log to Weights & Biases (offline)")
    command.run(work, parser.parse_args())


@dataclass(frozen=True)
class Job:
    """One run: what is trained on what, and where it is written."""

    recipe: Recipe
    settings: dict[str, Any]  # what a resumed run must share with the one that was interrupted
    card: dict[str, Any]
    cases: list[Slices]
    held_out: list[Slices]
    out: Path


def work(arguments: argparse.Namespace) -> None:
    """Train as the command line says."""
    out: Path = arguments.out
    started = load_model(arguments.start) if arguments.start else None
    size = arguments.size or (started[1].name if started else Recipe.size)
    if started and started[1].name != size:
        raise GliosliceError(f"--from {arguments.start} is a {started[1].name}, not a {size}")
    if min(arguments.epochs, arguments.steps, arguments.batch) < 1:
        raise GliosliceError("--epochs, --steps and --batch must be at least 1")
    if (out / STATE).exists() and not arguments.resume:
        raise GliosliceError(f"{out}: holds a run already; add --resume or name another")
    recipe = Recipe(
        size=size,
        epochs=arguments.epochs,
        steps=arguments.steps,
        batch=arguments.batch,
        rate=arguments.rate,
        seed=arguments.seed,
    )
    cases, held_out = load_split(arguments.data, arguments.hold_out, recipe.seed, arguments.cache)
    settings = asdict(recipe) | {
        "from": started[1].content["files"][f"{size}.safetensors"]["sha256"] if started else None,
        "cases": [{"case": c.case, "digest": c.digest} for c in cases],
    }
    torch.manual_seed(recipe.seed)
    network = started[0] if started else UNet(SIZES[size])
    card = trained_card(network, size, settings, held_out, started[1] if started else None)
    job = Job(recipe, settings, card, cases, held_out, out)
    with process() as place:
        rows, optimiser = begin(job, network, place, arguments.resume)
        log = Log(out, rows, arguments.wandb, settings) if place.leads else None
        try:
            train(job, network, optimiser, place, len(rows), log)
        finally:
            if log is not None:
                log.close()


def begin(job: Job, network: UNet, place: Process, resume: bool) -> tuple[list[Row], AdamW]:
    """Return the rows of the epochs already done, none for a new run, and the optimiser."""
    network.to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = AdamW(network.parameters(), lr=job.recipe.rate, weight_decay=job.recipe.decay)
    rows = restore(job.out, network, optimiser, job.settings) if resume else []
    if place.leads:
        print(
            f"{job.recipe.size}: {job.card['network']['parameters']:,} parameters, "
            f"{len(job.cases)} cases to train on, {len(job.held_out)} held out, "
            f"{place.count} x {place.device}, {len(rows)} of {job.recipe.epochs} epochs done",
            flush=True,
        )
    return rows, optimiser


def train(
    job: Job, network: UNet, optimiser: AdamW, place: Process, done: int, log: Log | None
) -> None:
    """Run the epochs; each ends with the state on disk."""
    recipe = job.recipe
    parallel = DistributedDataParallel(network) if place.count > 1 else network
    for epoch in range(done + 1, recipe.epochs + 1):
        began = time.monotonic()
        loss = one_epoch(parallel, optimiser, recipe, epoch, job.cases, place)
        if log is None:
            continue
        row: Row = {"epoch": epoch, "rate": rate_at(recipe, epoch * recipe.steps), "loss": loss}
        if job.held_out and (epoch % recipe.judge_every == 0 or epoch == recipe.epochs):
            row |= judge(network, job.held_out, place)
        log.add(row)
        training = job.card["training"] | {"epochs_done": epoch}
        write_model(job.out, network, job.card | {"training": training})
        save_state(job.out, network, optimiser, job.settings, log.rows)
        line = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
        print(f"{line}  {time.monotonic() - began:.0f} s", flush=True)


def one_epoch(
    network: torch.nn.Module,
    optimiser: AdamW,
    recipe: Recipe,
    epoch: int,
    cases: list[Slices],
    place: Process,
) -> float:
    """Return the mean loss of an epoch. All randomness comes from seed, epoch and rank."""
    generator = torch.Generator().manual_seed((recipe.seed * 10_000 + epoch) * 64 + place.rank)
    criterion, total = RegionLoss(), 0.0
    network.train()
    drawn = batches(cases, count=recipe.steps, size=recipe.batch, generator=generator)
    for step, (images, labels) in enumerate(drawn):
        images, labels = augment(images.to(place.device), labels.to(place.device), generator)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(recipe, (epoch - 1) * recipe.steps + step)
        with torch.autocast(place.device.type, torch.bfloat16, enabled=place.mixed):
            logits = network(images.contiguous(memory_format=torch.channels_last))
        loss = criterion(logits, labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.item()
    return total / recipe.steps


def rate_at(recipe: Recipe, step: int) -> float:
    """Return the learning rate at `step`: linear warm-up, then a cosine to zero."""
    whole = recipe.epochs * recipe.steps
    warm = max(1, round(recipe.warmup * whole))
    if step < warm:
        return recipe.rate * (step + 1) / warm
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, whole - warm)))


@torch.no_grad()
def judge(network: UNet, cases: list[Slices], place: Process) -> Row:
    """Return the mean volume Dice of WT, TC, ET over cases, by the float network."""
    network.eval()
    scores = []
    for case in cases:
        parts = torch.from_numpy(case.images.copy()).permute(0, 3, 1, 2).split(16)
        logits = torch.cat([network(p.to(place.device).float()).cpu() for p in parts], 0)
        regions = (logits > 0).permute(1, 0, 2, 3).numpy()  # (3, Z, X, Y)
        scores.append(region_dice(to_labels(regions), case.labels))
    return {name: sum(s[name] for s in scores) / len(scores) for name in scores[0]}


def save_state(
    run: Path, network: UNet, optimiser: AdamW, settings: dict[str, Any], rows: list[Row]
) -> None:
    """Write all that the next epoch depends on, in one file."""
    tensors: dict[str, Tensor] = {f"network.{k}": v for k, v in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
    save_tensors(run / STATE, tensors, {"settings": settings, "rows": rows})


def restore(run: Path, network: UNet, optimiser: AdamW, settings: dict[str, Any]) -> list[Row]:
    """Load the state of `run` into network and optimiser; return the rows of its log.

    Raises GliosliceError if the run was started with other settings or other cases.
    """
    tensors, note = load_state(run)
    for name, value in settings.items():
        if note["settings"].get(name) != value:
            raise GliosliceError(f"{run}: was started with other {name}; resume it with the same")
    network.load_state_dict(
        {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = tensor
    optimiser.load_state_dict(
        {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
    )
    rows: list[Row] = note["rows"]
    return rows


if __name__ == "__main__":
    main()
