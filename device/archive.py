"""Segment an archive of cases: by parts, or on a Dask cluster, with one table at the end.

    glioslice segment ARCHIVE --out MASKS --part 3/16    # one of sixteen processes, on any machine
    glioslice segment ARCHIVE --out MASKS --dask         # one process per core of this machine
    glioslice segment ARCHIVE --out MASKS --summary      # merge what is done into summary.csv

A case NAME leaves NAME-mask.nii.gz, NAME-mask.png and last NAME-result.json. `glioslice.cluster`
shares the cases and says which are done.
"""

import argparse
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from device.engine import Engine
from device.segment import Segmentation, find_paths, segment
from glioslice.cases import Case, case_name, read_case
from glioslice.cluster import Archive, ArchiveCase, list_cases, run_archive
from glioslice.dataset_layouts import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.labels import REGIONS, to_scheme
from glioslice.metrics import region_dice, volumes_ml
from glioslice.model_card import find_model
from glioslice.montage import write_montage
from glioslice.nifti import write_mask
from glioslice.sanity_checks import mask_warnings

COLUMNS = (
    "slices", "seconds", *(f"{r}_{what}" for what in ("ml", "dice") for r in REGIONS), "warnings"
)  # fmt: skip
"""Volumes in mL, Dice (vs. ground truth) where there is one."""

_loaded, _loading = threading.local(), threading.Lock()


@dataclass(frozen=True)
class SegmentOptions:
    """What every case has in common; it is pickled for the workers of a cluster."""

    out: Path
    model: Path
    threads: int = 1
    delegate: str | None = None
    raw: bool = False
    mirroring: bool | None = None
    missing: tuple[str, ...] = ()
    orientation: str | None = None
    edition: str | None = None

    @property
    def method(self) -> str:
        """The model and the options that change masks."""
        options = [
            *(["raw"] if self.raw else []),
            *(["no mirroring"] if self.mirroring is False else []),
            *(["without " + ", ".join(self.missing)] if self.missing else []),
            *([f"orientation {self.orientation}"] if self.orientation else []),
            *([f"labels of {self.edition}"] if self.edition else []),
        ]
        return "; ".join([sha256(self.model), *options])


def segment_archive(arguments: argparse.Namespace) -> None:
    """Do what --part, --dask or --summary asks; raises GliosliceError if a case failed."""
    given: list[Path] = [*arguments.cases, *arguments.input]
    if not given or any(getattr(arguments, modality) for modality in MODALITIES):
        raise GliosliceError("--part, --dask and --summary need a folder of cases")
    for path in given:  # one case of 16 parts would fail, and the other parts would find nothing
        if not path.exists():
            raise GliosliceError(f"{path}: no such folder or file")
    cases = list_cases((case_name(path), path) for path in find_paths(given, arguments.out))
    options = SegmentOptions(
        arguments.out.absolute(),  # workers run elsewhere
        find_model(arguments.model).absolute(),
        arguments.threads,
        arguments.delegate,
        arguments.raw,
        False if arguments.no_mirroring else None,
        tuple(sorted(arguments.missing)),
        arguments.orientation,
        arguments.edition,
    )
    if not arguments.summary:
        load_engine(options)  # a wrong model or runtime is reported once, before the first case
    archive = Archive(
        cases, partial(segment_one, options), partial(write_segmented, options), options.out,
        options.method, "{}-mask.nii.gz", COLUMNS, "segmented",
    )  # fmt: skip
    run_archive(archive, arguments)


def load_engine(options: SegmentOptions) -> Engine:
    """Return the engine of this thread, loaded once: `dask worker` has a thread per core."""
    if getattr(_loaded, "options", None) != options:
        with _loading:  # what the runtime prints is captured for the whole process
            _loaded.engine = Engine(
                options.model,
                threads=options.threads,
                delegate=options.delegate,
                mirroring=options.mirroring,
            )
        _loaded.options = options
    engine: Engine = _loaded.engine
    return engine


def segment_one(options: SegmentOptions, case: ArchiveCase) -> tuple[Case, Segmentation]:
    """Read and segment a case."""
    read = read_case(
        case.path, options.missing, orientation=options.orientation, labels=options.edition
    )
    return read, segment(read.volumes, load_engine(options), raw=options.raw)


def write_segmented(
    options: SegmentOptions, case: ArchiveCase, made: tuple[Case, Segmentation]
) -> dict[str, Any]:
    """Write the mask and the montage of a case; return its row's values."""
    read, result = made
    mask = options.out / f"{case.name}-mask.nii.gz"
    write_mask(mask, to_scheme(result.labels, read.scheme), read.space)
    write_montage(mask.with_name(f"{case.name}-mask.png"), read.volumes, result.labels)
    dice = None if read.labels is None else region_dice(result.labels, read.labels)
    return {
        "slices": len(result.milliseconds),
        **{f"{region}_ml": ml for region, ml in volumes_ml(result.labels).items()},
        **{f"{region}_dice": value for region, value in (dice or {}).items()},
        "warnings": mask_warnings(read, load_engine(options).card),
    }
