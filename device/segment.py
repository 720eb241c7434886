"""Segment cases on this machine, without a board.

    glioslice segment                              # the phantom, with the shipped compact model
    glioslice segment CASE                         # demo/<case>-mask.nii.gz and <case>-mask.png
    glioslice segment FOLDER --out masks           # every case in a folder
    glioslice segment --flair F --t1 A --t1ce B --t2 C     # four files, whatever their names
    glioslice segment FOLDER --out masks --dask    # on all cores; more in device/archive.py
    python -m device.segment CASE                  # the same from a checkout

`segment` is the one path from a volume to its masks. Evaluation, acceptance of converted files and
benchmarks call it, so they judge exactly what runs.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device.engine import Engine, add_engine_options, add_mirroring_option
from glioslice import cli
from glioslice.case_options import add_case_options, add_missing_option, named_files, read_source
from glioslice.cases import Case, CaseFiles, input_paths, phantom_case
from glioslice.cli import configure_malloc
from glioslice.cluster import add_cluster_options, wants_archive
from glioslice.errors import GliosliceError
from glioslice.files import check_folder
from glioslice.labels import to_labels, to_scheme
from glioslice.metrics import format_dice, region_dice, summary_lines, volumes_ml
from glioslice.model_card import Card, find_model
from glioslice.montage import write_montage
from glioslice.nifti import write_mask
from glioslice.postprocessing import Postprocessed, postprocess
from glioslice.preprocessing import Images, iterate_slices, restore_volume
from glioslice.sanity_checks import mask_warnings

logger = logging.getLogger(__name__)


class SliceNetwork(Protocol):
    """Whatever turns a slice into regions: the engine, or a torch network under evaluation."""

    @property
    def card(self) -> Card:
        """The card that describes its input."""

    def run(self, z_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return WT, TC, ET (3, X, Y) of a slice (X, Y, 4) of z-scores."""


@dataclass(frozen=True)
class Segmentation:
    """Labels (X, Y, Z) in LPS orientation, and the milliseconds that each slice took.

    `changes` is what post-processing did to the labels, None if it was not applied.
    """

    labels: NDArray[np.uint8]
    milliseconds: tuple[float, ...]
    changes: Postprocessed | None = None


def segment(
    images: Images, network: SliceNetwork, progress: str = "", *, raw: bool = False
) -> Segmentation:
    """Segment images (4, X, Y, Z) slice by slice; `progress` is the title of a progress bar.

    The rules of the network's card are then applied to the whole volume, unless `raw`. Raises
    GliosliceError if there is no brain or it does not fit the window.
    """
    crop, slices = iterate_slices(images, network.card.window, network.card.clip)
    count = crop.z[1] - crop.z[0]
    logger.info("%d slices with brain, from slice %d", count, crop.z[0] + 1)
    masks = np.empty((count, *crop.window), np.uint8)
    milliseconds = []
    indices = cli.track(range(count), progress) if progress else range(count)
    for index, z_scores in zip(indices, slices, strict=True):
        started = time.perf_counter()
        masks[index] = to_labels(network.run(z_scores))
        milliseconds.append((time.perf_counter() - started) * 1000)
    labels, rules = restore_volume(masks, crop), network.card.rules
    if raw or not rules:
        return Segmentation(labels, tuple(milliseconds))
    changes = postprocess(labels, rules)
    return Segmentation(changes.labels, tuple(milliseconds), changes)


def main(argv: Sequence[str] | None = None) -> None:
    """Segment cases or the phantom; write a mask, a montage and a summary for each."""
    configure_malloc()
    parser = cli.parser(
        "Segment cases on this machine, without a board.",
        "glioslice segment CASE --out masks",
    )
    parser.add_argument(
        "cases", nargs="*", type=Path, metavar="CASE",
        help="a case or a folder of cases; default: the phantom",
    )  # fmt: skip
    parser.add_argument(
        "--input", action="append", type=Path, default=[], metavar="CASE", help="the same as CASE"
    )
    add_engine_options(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="folder of the masks; default: demo/",
    )
    parser.add_argument(
        "--raw", action="store_true", help="leave the masks as the network gives them"
    )
    add_mirroring_option(parser)
    add_missing_option(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="overwrite existing files; with --part or --dask, repeat the cases that are done",
    )
    add_case_options(parser)
    add_cluster_options(parser)
    cli.run(segment_cases, parser.parse_args(argv))


def segment_cases(arguments: argparse.Namespace) -> None:
    """Segment each case of `arguments`; exit with code 2 if one of several failed."""
    if wants_archive(arguments):
        from device.archive import segment_archive

        segment_archive(arguments)
        return
    model = find_model(arguments.model)
    given: list[Path] = [*arguments.cases, *arguments.input]
    named = named_files(arguments)
    if named and given:
        raise GliosliceError("give a CASE, or its four files by modality, not both")
    sources: list[CaseFiles | Path] = [*find_paths(given, arguments.out)]
    sources += [named] if named else []
    check_folder(arguments.out)
    engine = Engine(
        model,
        threads=arguments.threads,
        delegate=arguments.delegate,
        mirroring=False if arguments.no_mirroring else None,
    )
    print(f"{model.name} ({model.stat().st_size:,} bytes) on {engine.runtime}")
    if len(sources) <= 1:
        missing = arguments.missing
        case = read_source(sources[0], arguments) if sources else phantom_case(0, missing)
        segment_case(case, engine, arguments.out, raw=arguments.raw, force=arguments.force)
        return
    failed = 0
    first: dict[str, CaseFiles | Path] = {}
    for source in sources:
        try:
            case = read_source(source, arguments)
            if case.name in first:
                raise GliosliceError(
                    f"{source}: has the name of {first[case.name]}, whose mask it would overwrite; "
                    "segment it alone, with another --out"
                )
            first[case.name] = source
            segment_case(case, engine, arguments.out, raw=arguments.raw, force=arguments.force)
        except Exception as error:  # a batch never ends because of one case
            if arguments.debug:
                raise
            failed += 1
            print(f"error: {describe_failure(source, error)}", file=sys.stderr, flush=True)
    print(f"{len(sources) - failed} of {len(sources)} cases segmented")
    if failed:
        sys.exit(2)


def find_paths(given: Sequence[Path], out: Path | None) -> list[Path]:
    """Return the path of each case: files as they are, and those of each folder (`input_paths`)."""
    return [one for path in given for one in (input_paths(path, out) if path.is_dir() else [path])]


def describe_failure(source: CaseFiles | Path, error: Exception) -> str:
    """Return one line on a case of a batch that failed; it names the case."""
    line, name = cli.failure_line(error), str(source if isinstance(source, Path) else source.name)
    name = cli.one_line(ValueError(name))
    return line if name in line else f"{name}: {line}"


def segment_case(
    case: Case, engine: Engine, folder: Path, *, raw: bool = False, force: bool = False
) -> None:
    """Segment `case`, write its mask and its montage into `folder`, and print a summary.

    Raises GliosliceError if there is no brain, or if a file exists, unless `force`.
    """
    mask, montage = folder / f"{case.name}-mask.nii.gz", folder / f"{case.name}-mask.png"
    for path in (mask, montage):
        if path.exists() and not force:
            raise GliosliceError(
                f"{path}: already exists; move it, name another --out, or add --force"
            )
    result = segment(case.volumes, engine, progress=f"segmenting {case.name}", raw=raw)
    for warning in mask_warnings(case, engine.card):
        logger.warning("%s: %s", case.name, warning)
    write_mask(mask, to_scheme(result.labels, case.scheme), case.space)
    write_montage(montage, case.volumes, result.labels)
    print(f"mask: {mask} ({case.scheme.edition} labels)\nmontage: {montage}")
    if result.changes:
        print(f"post-processing: {result.changes.summary()}")
    if case.labels is not None:
        print(format_dice(region_dice(result.labels, case.labels)))
    volumes = volumes_ml(result.labels)
    for line in summary_lines(len(result.milliseconds), result.milliseconds, volumes):
        print(line)


if __name__ == "__main__":
    main()
