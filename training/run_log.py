"""The log of a run: a CSV that any tool reads, TensorBoard, and Weights & Biases if asked for."""

import csv
import os
from pathlib import Path
from typing import Any

from tensorboard.summary import Writer

from glioslice.errors import GliosliceError
from glioslice.files import whole

Row = dict[str, float]


class Log:
    """Rows of one run, a row an epoch; a resumed run goes on after its last whole epoch."""

    def __init__(self, run: Path, rows: list[Row], wandb: bool, settings: dict[str, Any]) -> None:
        self.rows = rows
        self._csv = run / "log.csv"
        self._board = Writer(str(run / "tensorboard"))
        self._wandb = _start_wandb(run, settings) if wandb else None

    def add(self, row: Row) -> None:
        """Append the row of an epoch; `row["epoch"]` counts from 1."""
        self.rows.append(row)
        with whole(self._csv) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for r in self.rows for k in r)))
            writer.writeheader()
            writer.writerows(self.rows)
        for name, value in row.items():
            self._board.add_scalar(name, value, int(row["epoch"]))
        if self._wandb is not None:
            self._wandb.log(row, step=int(row["epoch"]))

    def close(self) -> None:
        """Finish the files."""
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(run: Path, settings: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise GliosliceError("--wandb needs its package: pip install 'glioslice[wandb]'") from None
    # Nothing leaves the machine unless the user has logged in and set WANDB_MODE=online.
    os.environ.setdefault("WANDB_MODE", "offline")
    return wandb.init(project="glioslice", dir=str(run), config=settings)
