"""On what a training process runs: device, precision, and its place among others (torchrun)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class Process:
    """One of `count` processes; `rank` 0 writes the files and the log."""

    rank: int
    count: int
    device: torch.device
    mixed: bool

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0


@contextmanager
def process() -> Iterator[Process]:
    """Yield this process's place; joins the group that torchrun started, if one did.

    Mixed precision (bfloat16, which needs no loss scaling) where the device computes it natively.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        mixed = torch.cuda.is_bf16_supported()
    else:
        device = torch.device("cpu")
        mixed = torch.cpu._is_avx512_bf16_supported()
    if count > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(rank, count, device, mixed)
    finally:
        if count > 1:
            distributed.destroy_process_group()
