"""Where a training process runs: its device, its precision and its rank under torchrun."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


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

    Mixed precision is used where the device computes bfloat16 natively.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        mixed_precision = torch.cuda.is_bf16_supported()
    else:
        device = torch.device("cpu")
        mixed_precision = torch.cpu._is_avx512_bf16_supported()
    if world_size > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield DistributedContext(rank, world_size, device, mixed_precision)
    finally:
        if world_size > 1:
            distributed.destroy_process_group()
