"""Stream cases to a board over a serial link and save the masks.

    glioslice stream CASE --port /dev/ttyUSB0                 # mask, montage and summary
    glioslice stream CASE --port sim://                       # a board on a simulated line
    glioslice stream FOLDER --port auto --output masks        # all cases; find the board
    glioslice stream CASE --port P --view                     # with a live page in the browser
    glioslice stream FOLDER --port auto --boards all          # all cases, on every board
    glioslice stream SERIES_FOLDER --port P --dicom-out DIR   # from a scanner's folder to DICOM SEG
    python firmware_host/stream.py --port /dev/ttyUSB0        # from a checkout

A run that ends early keeps its masks as `<name>.partial.nii.gz`, never under the final name.

A JSON report holds: case (null for one that the board played), complete, mode, images (codec),
lossless, slices, masks, seconds, slices_per_second, device_ms {p50, p90, p99}, bytes_up,
bytes_down, retransmits (the host's), volumes_ml and diameters_mm {WT, TC, ET}, quality {mean,
below, unsure: at most five slices to look at, counted from 1, the worst first}, model {name,
sha256}, mirroring, missing (modalities), postprocessing {summary, removed_ml, core_ml, rules}
(null if no rules were applied), dice (null without ground truth), labels, date, version, shape and
affine of the mask, warnings, notice (not a medical device).
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
from collections.abc import Sequence

from firmware_host import interrupts
from firmware_host.options import FarEnd, parse_options
from glioslice import cli, startup
from glioslice.cli import configure_malloc
from glioslice.errors import GliosliceError


def main(argv: Sequence[str] | None = None, far_end: FarEnd | None = None) -> None:
    """Read the command line and stream.

    `far_end` returns the command of the board on a simulated line, by default `python -m device`.
    """
    with interrupts.handled():
        configure_malloc()
        cli.run(lambda arguments: run_command(arguments, far_end), parse_options(argv))


def run_command(arguments: argparse.Namespace, far_end: FarEnd | None) -> None:
    """Run what the options select: a case, a folder of cases, or an alias of another command."""
    with startup.importing():
        from firmware_host import (
            batch,
            discovery,
            doctor,
            handshake,
            inputs,
            pooled_cases,
            run,
        )
        from firmware_host.viewer import finished_case

    def device(given: argparse.Namespace) -> list[str]:
        played = given.case if given.play else None
        return handshake.device_command(given.model, given.baud, played, given.missing)

    series = bool(arguments.dicom_out) or run.holds_series(arguments.case)
    if not series:  # there --t1ce and the others are numbers of series, not files
        inputs.given_source(arguments)
    if not series and (arguments.study or arguments.brain_extraction):
        raise GliosliceError(
            "--study and --brain-extraction are for a scanner's folder of DICOM series, which "
            f"{arguments.case or 'the phantom'} is not"
        )
    if arguments.open:
        finished_case.show(arguments.open, arguments.case, arguments, arguments.view or 0)
    elif arguments.list:
        discovery.list_ports(arguments)
    elif arguments.doctor:
        doctor.examine(arguments, far_end or device)
    elif pooled_cases.wants_several(arguments):
        pooled_cases.stream_on_boards(arguments, far_end or device)
    elif series:
        run.stream_series(arguments, far_end or device)
    elif batch.folder_cases(arguments.case):
        batch.stream_folder(arguments, far_end or device)
    else:
        run.stream_case(arguments, far_end or device)


if __name__ == "__main__":
    main()
