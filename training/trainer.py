"""What a training process works with: its place, its loss, its state, its log and its progress.

Place: device, precision and the rank under torchrun. Loss: batch Dice plus cross-entropy, for each
region separately. State: network, averaged weights and optimiser, in memory and on disk. Log: a CSV
file, TensorBoard and, on request, Weights & Biases. Progress: on a terminal a bar shows batches,
loss and time left; elsewhere a line on stderr does, within five seconds of the first batch and then
twice a minute.
"""

import csv
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from monai.losses.dice import DiceLoss
from tensorboard.summary import Writer
from torch import Tensor, distributed, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from glioslice.cli import drawable
from glioslice.errors import GliosliceError
from glioslice.files import atomic_path
from glioslice.labels import CORE, ENHANCING
from training.checkpoint import STATE, load_state, save_tensors
from training.config import TrainingConfig
from training.dataset import IGNORE
from training.network import Network

FIRST_LINE, LINE_EVERY, BAR_EVERY = 3.0, 30.0, 0.5
"""Seconds until the first plain line, between plain lines, and between updates of the bar."""

SAVE_EVERY = 45.0
"""Seconds between saves within an epoch: the documentation promises one at least every minute."""

GRACE = 10.0
"""Seconds that a batch has to end after Ctrl-C; a later Ctrl-C ends the run within the batch."""


@dataclass(frozen=True)
class DistributedContext:
    """One of `world_size` processes; only rank 0 writes files and the log.

    `mixed_precision` runs the network in bfloat16, which needs no loss scaling.
    """

    rank: int
    world_size: int
    device: torch.device
    mixed_precision: bool

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0


@contextmanager
def distributed_context() -> Iterator[DistributedContext]:
    """Yield the context of this process; join torchrun's process group if there is one.

    Mixed precision is used where the device computes bfloat16 natively. gloo's threads end with the
    last reference to the group, such as that of a DistributedDataParallel, so none may be left
    afterwards. A thread releases Python objects of an all-reduce after it, and if the interpreter
    is ending by then, the process aborts.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        mixed_precision = torch.cuda.is_bf16_supported()
    else:
        device = torch.device("cpu")
        mixed_precision = torch.cpu._is_avx512_bf16_supported()
    if world_size > 1:
        # Defaults of its functions' parameters are the group that exists when it is imported, which
        # DistributedDataParallel does.
        import_module("torch.distributed.nn.functional")
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield DistributedContext(rank, world_size, device, mixed_precision)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # where a DistributedDataParallel may be
        raise
    finally:
        if world_size > 1:
            distributed.destroy_process_group()


class RegionLoss(nn.Module):
    """Loss of logits (B, 3, H, W) against labels (B, H, W); pixels labelled IGNORE do not count.

    Dice is computed over the whole batch, because a slice without tumour has no Dice of its own. It
    has the form that is minimal where the output equals a soft target (Wang et al., "Dice
    Semimetric Losses", MICCAI 2023); for hard labels that is the usual Dice loss.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(batch=True, soft_label=True)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        teachers: Tensor | None = None,
        teacher_weight: Tensor | float = 0.0,
    ) -> Tensor:
        """Return Dice loss plus cross-entropy, in float32 whatever the type of the logits.

        If `teachers` are given, probabilities (B, 3, H, W), the target is the mean of them and the
        labels, weighted by `teacher_weight`, which broadcasts to (B, 3, H, W).
        """
        known = (labels != IGNORE)[:, None]
        wt = (labels > 0)[:, None] & known
        target = torch.stack(
            [wt[:, 0], (labels == CORE) | (labels == ENHANCING), labels == ENHANCING], 1
        ).float()
        if teachers is not None:
            target = torch.lerp(target, teachers * known, teacher_weight)
        logits = logits.float()
        loss: Tensor = self.dice(torch.sigmoid(logits) * known, target)
        counted = known.sum() * logits.shape[1]
        entropy = binary_cross_entropy_with_logits(
            logits, target, weight=known.float(), reduction="sum"
        )
        return loss + entropy / counted.clamp(min=1)


EpochRow = dict[str, float]


class RunLog:
    """The log of one run, one row per epoch; a resumed run appends to the rows it had."""

    def __init__(
        self, run: Path, rows: list[EpochRow], wandb: bool, settings: dict[str, Any]
    ) -> None:
        self.rows = rows
        self._csv = run / "log.csv"
        self._tensorboard = Writer(str(run / "tensorboard"))
        self._wandb = _start_wandb(run, settings) if wandb else None

    def add(self, row: EpochRow) -> None:
        """Append the row of an epoch; `row["epoch"]` counts from 1."""
        self.rows.append(row)
        with atomic_path(self._csv) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for r in self.rows for k in r)))
            writer.writeheader()
            writer.writerows(self.rows)
        for name, value in row.items():
            self._tensorboard.add_scalar(name, value, int(row["epoch"]))
        if self._wandb is not None:
            self._wandb.log(row, step=int(row["epoch"]))

    def close(self) -> None:
        """Close TensorBoard's file and the Weights & Biases run."""
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(run: Path, settings: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise GliosliceError(
            "--wandb needs the package wandb: pip install 'glioslice[wandb]'"
        ) from None
    # Nothing leaves the machine unless the user has logged in and set WANDB_MODE=online.
    os.environ.setdefault("WANDB_MODE", "offline")
    return wandb.init(project="glioslice", dir=str(run), config=settings)


@dataclass(frozen=True)
class Trainer:
    """What training changes: the network, the running average of its weights, the optimiser."""

    network: Network
    average: AveragedModel
    optimiser: AdamW

    @property
    def averaged_network(self) -> Network:
        """The network with averaged weights, which is validated and saved."""
        network = self.average.module
        assert isinstance(network, Network)
        return network


def new_trainer(network: Network, config: TrainingConfig) -> Trainer:
    """Return the trainer of a new run; the network must be on its device."""
    return Trainer(
        network,
        AveragedModel(
            network, multi_avg_fn=partial(update_average, config.average), use_buffers=True
        ),
        AdamW(
            network.parameters(),
            lr=config.rate,
            weight_decay=config.decay,
            fused=next(network.parameters()).is_cuda,
        ),
    )


@torch.no_grad()
def update_average(decay: float, average: Any, current: Any, updates: Tensor) -> None:
    """Move `average` towards `current` by 1 - decay, faster in the first steps of a run."""
    decay = min(decay, (1 + int(updates)) / (10 + int(updates)))
    # torch groups tensors by type; counters (integers) are copied, not averaged.
    if average[0].is_floating_point():
        torch._foreach_lerp_(average, current, 1 - decay)
    else:
        torch._foreach_copy_(average, current)


@dataclass(frozen=True)
class Position:
    """How far a run is: the rows of finished epochs, and batches of the one that is not finished.

    `loss` is the sum of those batches' losses.
    """

    rows: list[EpochRow]
    batches: int = 0
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))


def save_state(run: Path, trainer: Trainer, settings: dict[str, Any], position: Position) -> None:
    """Write everything that the next batch depends on into one file."""
    tensors: dict[str, Tensor] = {
        f"{part}.{name}": tensor
        for part, module in (("network", trainer.network), ("average", trainer.average))
        for name, tensor in module.state_dict().items()
    }
    for index, state in trainer.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
    note: dict[str, Any] = {"settings": settings, "rows": position.rows}
    if position.batches:
        tensors["epoch.loss"] = position.loss
        note["batches"] = position.batches
    save_tensors(run / STATE, tensors, note)


def restore_state(run: Path, trainer: Trainer, settings: dict[str, Any]) -> Position:
    """Load the state of `run` into the trainer; return how far the run was.

    Raises GliosliceError if the run was started with other settings or cases.
    """
    tensors, note = load_state(run)
    for name, value in settings.items():
        if note["settings"].get(name) != value:
            raise GliosliceError(
                f"{run}: was started with a different value of {name}; resume with the same"
            )
    for part, module in (("network.", trainer.network), ("average.", trainer.average)):
        module.load_state_dict(
            {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)}
        )
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = tensor
    trainer.optimiser.load_state_dict(
        {"state": state, "param_groups": trainer.optimiser.state_dict()["param_groups"]}
    )
    position = Position(note["rows"], note.get("batches", 0))
    return replace(position, loss=tensors["epoch.loss"]) if position.batches else position


def record_cuda_graphs(
    network: Network, batch: int, crop: int, context: DistributedContext
) -> Network:
    """Record the network's training passes for images (batch, C, crop, crop) as CUDA graphs.

    A compact network's kernels finish faster than Python starts the next one. Recorded kernels are
    launched together, so a GPU trains several networks in the time of one. The network is changed
    in place and returned; in evaluation mode it runs as before. On a CPU nothing changes.
    """
    if context.device.type != "cuda":
        return network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sample = torch.zeros(batch, network.config.inputs, crop, crop, device=context.device)
    sample = sample.contiguous(memory_format=torch.channels_last)
    network.train()
    with torch.autocast(
        "cuda", torch.bfloat16, enabled=context.mixed_precision, cache_enabled=False
    ):
        torch.cuda.make_graphed_callables(network, (sample,))  # replaces its forward
    network.load_state_dict(before)  # recording has changed the running means
    return network


@dataclass
class Ticker:
    """Is due every `every` seconds, the first time after `wait` seconds."""

    every: float
    wait: float
    clock: Callable[[], float] = time.monotonic
    _next: float = field(init=False)

    def __post_init__(self) -> None:
        """Start to count."""
        self._next = self.clock() + self.wait

    def is_due(self) -> bool:
        """Return whether it is time; if so, the next time is `every` seconds from now."""
        if self.clock() < self._next:
            return False
        self._next = self.clock() + self.every
        return True


class BatchProgress:
    """Shows where a run of `epochs` epochs of `steps` batches is; a context manager.

    Of several processes one has it `shown`.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        done: int,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._epochs, self._steps, self._first = epochs, steps, done
        self._clock, self._started = clock, clock()
        self._bar: Any = None
        self._shown, drawn = shown, shown and drawable()
        self._ticker = Ticker(
            BAR_EVERY if drawn else LINE_EVERY, BAR_EVERY if drawn else FIRST_LINE, clock
        )
        if drawn:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(
                BarColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # or rows would not reach a file
            )
            self._bar.add_task("the first batch", total=epochs * steps, completed=done)

    def __enter__(self) -> "BatchProgress":
        """Draw the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, mean_loss: Callable[[], float]) -> None:
        """Show `done` batches of the run if it is time; only then is the loss computed."""
        if not self._shown or not self._ticker.is_due():
            return
        text = self.describe(done, mean_loss())
        if self._bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.update(0, completed=done, description=text)

    def describe(self, done: int, loss: float) -> str:
        """Return epoch, batch, loss and the time left at this process's own speed."""
        epoch, batch = divmod(done - 1, self._steps)
        spent = self._clock() - self._started
        left = spent / (done - self._first) * (self._epochs * self._steps - done)
        return (
            f"epoch {epoch + 1} of {self._epochs}, batch {batch + 1} of {self._steps}, "
            f"loss {loss:.3f}, {format_duration(left)} left"
        )


def format_duration(seconds: float) -> str:
    """Return seconds as text: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def deferred_interrupt(enabled: bool = True) -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets, so that the batch at work ends and its state is saved.

    More of them change nothing for GRACE seconds; after that they raise KeyboardInterrupt at once.
    Nothing is deferred outside the main thread, which gets no signals, if Ctrl-C is ignored, as
    under nohup, or if not `enabled`.
    """
    interrupted = threading.Event()
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored or not enabled or threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    first = 0.0

    def note(_number: int, _frame: object) -> None:
        nonlocal first
        if interrupted.is_set() and time.monotonic() - first > GRACE:
            raise KeyboardInterrupt
        if not interrupted.is_set():
            first = time.monotonic()
        interrupted.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
