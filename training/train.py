"""Train a network on a folder of BraTS cases.

    python training/train.py --data ../shared/data/brats --out runs/compact
    python training/train.py --data DIR --out runs/ours --from models/compact     # fine-tune
    torchrun --nproc-per-node 2 training/train.py --data DIR --out runs/compact   # two processes

The run's folder becomes a model folder: `<size>.safetensors` holds the averaged weights and
`card.json` describes them. `log.csv`, `tensorboard/` and `state.safetensors` lie beside them;
`--resume` continues from the state and gives the same bytes as an uninterrupted run. The state is
written after each epoch, at least once a minute within it, and after Ctrl-C.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.model_card import CARD
from training.augment import augment, warp
from training.checkpoint import STATE, load_model, make_card, write_model
from training.config import FINE_TUNING_RATE, TrainingConfig, learning_rate, parse_config
from training.dataset import (
    LOW,
    PHANTOMS,
    CaseSlices,
    SlicePool,
    load_phantoms,
    load_split,
    make_pool,
    pool_of_cases,
    read_grades,
    resample_volumes,
    sample_slices,
    with_grades,
)
from training.distillation import Ensemble, check_unseen, load_teachers, volume_dice
from training.extra_images import (
    LesionCubes,
    SingleSlices,
    extra_entry,
    load_lesion_cubes,
    load_single_slices,
    make_canvases,
    same_patients,
)
from training.network import SIZES, Network, build_network, find_config
from training.trainer import (
    SAVE_EVERY,
    BatchProgress,
    DistributedContext,
    EpochRow,
    Position,
    RegionLoss,
    RunLog,
    Ticker,
    Trainer,
    deferred_interrupt,
    distributed_context,
    new_trainer,
    record_cuda_graphs,
    restore_state,
    save_state,
)

DEFAULT_SIZE = "compact"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = cli.parser(
        "Train a network on a folder of BraTS cases.",
        "glioslice train DIR --out runs/compact --size compact",
    )
    parser.add_argument(
        "cases", type=Path, nargs="?", metavar="DIR", help="folder of cases with ground truth"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="the same as DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--size", help=f"{', '.join(sorted(SIZES))} or package.module:NAME; default: {DEFAULT_SIZE}"
    )
    parser.add_argument(
        "--epochs", type=int, default=TrainingConfig.epochs,
        help=f"default: {TrainingConfig.epochs}",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, default=TrainingConfig.steps,
        help=f"batches per epoch; default: {TrainingConfig.steps}",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=int, default=TrainingConfig.batch,
        help=f"crops per batch; default: {TrainingConfig.batch}",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=float,
        help=f"peak learning rate; default: {TrainingConfig.rate:g}, or with --from "
        f"{FINE_TUNING_RATE:g}",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=TrainingConfig.seed, help="of all random numbers; default: 0"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="any other field of TrainingConfig; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--hold-out",
        default="0",
        metavar="N-OR-NAMES",
        help="patients to leave out: a number, or names with commas",
    )
    parser.add_argument(
        "--lesions", type=Path, metavar="NPZ", help="also train on these lesion cubes"
    )
    parser.add_argument(
        "--phantoms", type=int, default=0, metavar="N",
        help=f"also train on N synthetic heads, most of them healthy; at most {len(PHANTOMS)}",
    )  # fmt: skip
    parser.add_argument(
        "--slices", type=Path, metavar="NPZ", help="also train on these single slices"
    )
    parser.add_argument(
        "--patients", type=Path, metavar="CSV",
        help="table of cases: grade, and which lesion cubes are of the same patient",
    )  # fmt: skip
    parser.add_argument(
        "--teacher", type=Path, action="append", default=[], metavar="RUN",
        help="model folder to distil from; repeatable, the mean of their outputs is used",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="start", type=Path, metavar="MODEL", help="model folder to fine-tune"
    )
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("build/slices"),
        metavar="DIR",
        help="folder of prepared slices",
    )
    parser.add_argument(
        "--wandb", action="store_true", help="also log to Weights & Biases, offline"
    )
    arguments = parser.parse_args(argv)
    if (arguments.cases is None) == (arguments.data is None):
        parser.error("name the folder of cases once, as DIR or as --data DIR")
    arguments.data = arguments.data or arguments.cases
    cli.run(train_command, arguments)


@dataclass(frozen=True)
class TrainingRun:
    """What a run trains on and where it writes.

    `settings` must be equal in an interrupted run and the run that resumes it.
    """

    config: TrainingConfig
    settings: dict[str, Any]
    card: dict[str, Any]
    cases: list[CaseSlices]
    phantoms: list[CaseSlices]
    lesions: LesionCubes | None
    slices: SingleSlices | None
    held_out: list[CaseSlices]
    teachers: Ensemble
    out: Path


@dataclass(frozen=True)
class Pools:
    """The slices of volumes, of phantoms and single slices, in the memory that trains."""

    volumes: SlicePool
    phantoms: SlicePool | None
    single: SlicePool | None


def train_command(arguments: argparse.Namespace) -> None:
    """Train as the options specify."""
    out: Path = arguments.out
    config = parse_config(arguments)
    torch.manual_seed(config.seed)
    started = load_model(arguments.start) if arguments.start else None
    if started:
        network, size = started[0], started[1].name
        if arguments.size not in (None, size):
            raise GliosliceError(
                f"--from {arguments.start}: is {size}, but --size is {arguments.size}"
            )
    else:
        size, network_config = find_config(arguments.size or DEFAULT_SIZE)
        network = build_network(network_config)
    if not arguments.resume and any((out / name).exists() for name in (CARD, STATE)):
        raise GliosliceError(f"{out}: already holds a run or a model; add --resume or change --out")
    cases, held_out = load_split(arguments.data, arguments.hold_out, config.seed, arguments.cache)
    if arguments.patients:
        cases = with_grades(cases, read_grades(arguments.patients))
    if started:
        check_unseen("--from", arguments.start, started[1], held_out, arguments.patients)
    if not 0 <= arguments.phantoms <= len(PHANTOMS):
        raise GliosliceError(f"--phantoms {arguments.phantoms}: must be from 0 to {len(PHANTOMS)}")
    phantoms = load_phantoms(arguments.phantoms, arguments.cache)
    extras = arguments.lesions or arguments.slices
    left_out = same_patients(arguments.patients, held_out) if extras else set()
    lesions = load_lesion_cubes(arguments.lesions, left_out) if arguments.lesions else None
    slices = load_single_slices(arguments.slices, left_out) if arguments.slices else None
    teachers = load_teachers(arguments.teacher, held_out, arguments.patients)
    settings = asdict(config) | {
        "size": size,
        "phantoms": len(phantoms),
        "low_grade_cases": sum(case.grade == LOW for case in cases),
        "cubes": extra_entry(lesions, left_out),
        "single_slices": extra_entry(slices, left_out),
        "from": started[1].content["files"][f"{size}.safetensors"]["sha256"] if started else None,
        "teachers": teachers.card_entries,
        "cases": [{"case": c.case, "digest": c.digest} for c in cases],
    }
    inherited = started[1].content["training"]["cases"] if started else []
    card = make_card(network, size, settings, held_out, [*inherited, *teachers.training_cases])
    if started:
        card["earlier_training"] = earlier_training(started[1].content)
    run = TrainingRun(
        config, settings, card, cases, phantoms, lesions, slices, held_out, teachers, out
    )
    with distributed_context() as context:
        trainer, position = start_run(run, network, context, arguments)
        log = RunLog(out, position.rows, arguments.wandb, settings) if context.is_main else None
        try:
            train_epochs(run, trainer, context, position, log)
        finally:
            if log is not None:
                log.close()


def earlier_training(card: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of all trainings of a model, the oldest first, without their cases."""
    last = {key: value for key, value in card["training"].items() if key != "cases"}
    return [*card.get("earlier_training", []), last]


def start_run(
    run: TrainingRun, network: Network, context: DistributedContext, arguments: argparse.Namespace
) -> tuple[Trainer, Position]:
    """Return the trainer and how far the run is; a new run is at its beginning."""
    network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    run.teachers.to(context.device)
    trainer = new_trainer(network, run.config)
    position = restore_state(run.out, trainer, run.settings) if arguments.resume else Position([])
    if context.is_main:
        within = f" and {position.batches} of {run.config.steps} batches" * bool(position.batches)
        print(
            f"{run.card['name']}: {run.card['network']['parameters']:,} parameters, "
            f"{len(run.cases)} cases and {len(run.phantoms)} phantoms to train on, "
            f"{len(run.held_out)} held out, "
            f"{context.world_size} x {context.device}, "
            f"{len(position.rows)} of {run.config.epochs} epochs{within} done",
            flush=True,
        )
        if arguments.start and arguments.rate is None:
            print(
                f"fine-tuning {arguments.start} at a peak rate of {run.config.rate:g}, a tenth of "
                "a new network's, because its weights were trained down to a rate of 0; --rate "
                "changes it",
                flush=True,
            )
    return trainer, position


@dataclass
class Monitor:
    """Shows the progress of a run, saves within its epochs, and ends it after Ctrl-C.

    `kept` is what the state on disk holds of this run.
    """

    run: TrainingRun
    trainer: Trainer
    log: RunLog | None
    progress: BatchProgress
    interrupted: threading.Event
    saving: Ticker
    kept: str

    def after_batch(self, epoch: int, batches: int, loss: Tensor) -> None:
        """Note that `batches` of an epoch are done, with this sum of losses.

        Raises KeyboardInterrupt after Ctrl-C, once the state is saved.
        """
        steps = self.run.config.steps
        self.progress.show((epoch - 1) * steps + batches, lambda: float(loss) / batches)
        if batches == steps:  # the end of an epoch saves more
            return
        due = self.saving.is_due()
        if self.log is not None and (due or self.interrupted.is_set()):
            self.save(Position(self.log.rows, batches, loss))
        self.check_interrupt()

    def save(self, position: Position) -> None:
        """Write the state."""
        save_state(self.run.out, self.trainer, self.run.settings, position)
        self.kept = describe_position(position, self.run.config)

    def check_interrupt(self) -> None:
        """Raise KeyboardInterrupt after Ctrl-C."""
        if self.interrupted.is_set():
            raise KeyboardInterrupt


def describe_position(position: Position, config: TrainingConfig) -> str:
    """Return how far a run is, as text."""
    epochs = f"{len(position.rows)} of {config.epochs} epochs"
    if not position.batches:
        return epochs
    return f"{epochs} and {position.batches} of {config.steps} batches of the next"


def train_epochs(
    run: TrainingRun,
    trainer: Trainer,
    context: DistributedContext,
    position: Position,
    log: RunLog | None,
) -> None:
    """Train the remaining epochs; checkpoint, state and log are written after each.

    The state is also written within an epoch, every SAVE_EVERY seconds and after Ctrl-C, which one
    process takes after a batch. Of several processes each stops at once, wherever it is.
    """
    config = run.config
    network = trainer.network
    parallel = (
        DistributedDataParallel(network)
        if context.world_size > 1
        else record_cuda_graphs(network, config.batch, config.crop, context)
    )
    pools = make_pools(run, context.device)
    done = len(position.rows) * config.steps + position.batches
    with (
        BatchProgress(config.epochs, config.steps, done, shown=context.is_main) as progress,
        deferred_interrupt(enabled=context.world_size == 1) as interrupted,
    ):
        saving = Ticker(SAVE_EVERY, SAVE_EVERY)
        kept = describe_position(position, config)
        monitor = Monitor(run, trainer, log, progress, interrupted, saving, kept)
        try:
            for epoch in range(len(position.rows) + 1, config.epochs + 1):
                started = time.monotonic()
                loss = train_epoch(parallel, trainer, run, pools, epoch, context, position, monitor)
                position = Position([])  # only the first epoch of a resumed run has batches done
                if log is not None:
                    row = finish_epoch(run, trainer, context, epoch, loss, log)
                    monitor.save(Position(log.rows))
                    values = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
                    print(f"{values}  {time.monotonic() - started:.0f} s", flush=True)
                monitor.check_interrupt()
        except KeyboardInterrupt:
            if log is not None:
                print(
                    f"kept {monitor.kept} in {run.out / STATE}; --resume continues from there",
                    file=sys.stderr,
                )
            raise


def finish_epoch(
    run: TrainingRun,
    trainer: Trainer,
    context: DistributedContext,
    epoch: int,
    loss: float,
    log: RunLog,
) -> EpochRow:
    """Validate, write the row of an epoch and the checkpoint, and return the row."""
    config = run.config
    row: EpochRow = {
        "epoch": epoch, "rate": learning_rate(config, epoch * config.steps), "loss": loss
    }  # fmt: skip
    if run.held_out and (epoch % config.judge_every == 0 or epoch == config.epochs):
        row |= validate(trainer.averaged_network, run.held_out, context)
    log.add(row)
    training = run.card["training"] | {"epochs_done": epoch}
    write_model(run.out, trainer.averaged_network, run.card | {"training": training})
    return row


def train_epoch(
    network: torch.nn.Module,
    trainer: Trainer,
    run: TrainingRun,
    pools: Pools,
    epoch: int,
    context: DistributedContext,
    position: Position,
    monitor: Monitor,
) -> float:
    """Return the mean loss of an epoch, whose first batches may be done already."""
    config = run.config
    criterion = RegionLoss()
    total = position.loss.to(context.device, copy=True)
    network.train()
    if config.fixed_norms:
        for norm in (m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.eval()
    after_batches = random_source(config.seed, epoch, context.rank, config.steps)
    for pool in (pools.volumes, pools.phantoms):
        if pool is not None:
            resample_volumes(pool, config, after_batches)
    for step in range(position.batches, config.steps):
        generator = random_source(config.seed, epoch, context.rank, step)
        images, labels, phantom = make_batch(run, pools, generator)
        for group in trainer.optimiser.param_groups:
            group["lr"] = learning_rate(config, (epoch - 1) * config.steps + step)
        with torch.autocast(context.device.type, torch.bfloat16, enabled=context.mixed_precision):
            logits = network(images.contiguous(memory_format=torch.channels_last))
        teachers = run.teachers.probabilities(images, context) if run.teachers.networks else None
        # A teacher may find tumour in a phantom, and its student must not learn that.
        taught = config.taught * ~phantom[:, None, None, None]
        loss = criterion(logits, labels, teachers, taught)
        trainer.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        trainer.optimiser.step()
        trainer.average.update_parameters(trainer.network)
        total += loss.detach()
        monitor.after_batch(epoch, step + 1, total)
    return total.item() / config.steps


def make_pools(run: TrainingRun, device: torch.device) -> Pools:
    """Return the slices of a run in the memory of `device`."""
    config, single = run.config, run.slices
    return Pools(
        pool_of_cases(run.cases, device, config.resampled > 0),
        pool_of_cases(run.phantoms, device, config.resampled > 0) if run.phantoms else None,
        make_pool(single.images, single.labels, single.grades, device, jitter=config.slice_jitter)
        if single
        else None,
    )


def random_source(*place: int) -> torch.Generator:
    """Return the source of all randomness of one place in a run: seed, epoch, rank and batch.

    Each batch has its own, so a run may resume at any of them. The volumes of an epoch have that of
    the number after its last batch.
    """
    [mixed] = np.random.SeedSequence(place).generate_state(1)
    return torch.Generator().manual_seed(int(mixed))  # torch uses 32 bits of a seed


def make_batch(
    run: TrainingRun, pools: Pools, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return augmented crops (B, 4, crop, crop), labels (B, crop, crop), and which are phantoms.

    Those come first.
    """
    config = run.config
    from_cubes = round(config.batch * config.lesions) if run.lesions else 0
    from_slices = round(config.batch * config.slices) if pools.single else 0
    from_phantoms = round(config.batch * config.phantom_share) if pools.phantoms else 0
    from_volumes = config.batch - from_cubes - from_slices - from_phantoms
    counts = {"phantoms": from_phantoms, "volumes": from_volumes, "single": from_slices}
    sources = [
        sample_slices(getattr(pools, name), count, config, generator)
        for name, count in counts.items()
        if count
    ]
    images, labels, centres = (torch.cat(parts) for parts in zip(*sources, strict=True))
    images, labels = warp(images, labels, centres, (config.crop, config.crop), generator)
    if run.lesions and from_cubes:
        canvases = make_canvases(run.lesions, from_cubes, config.crop, generator, images.device)
        images, labels = torch.cat([images, canvases[0]]), torch.cat([labels, canvases[1]])
    phantom = torch.arange(len(images), device=images.device) < from_phantoms
    return augment(images, config.missing, generator), labels, phantom


def validate(network: Network, cases: list[CaseSlices], context: DistributedContext) -> EpochRow:
    """Return the mean volume Dice of WT, TC, ET over cases, computed in full precision."""
    context = replace(context, mixed_precision=False)
    scores = [volume_dice(Ensemble((network.eval(),)), case, context) for case in cases]
    return {name: sum(s[name] for s in scores) / len(scores) for name in scores[0]}


if __name__ == "__main__":
    main()
