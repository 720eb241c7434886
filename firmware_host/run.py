"""One run, from the first check to the last file, however it ends.

    job = start_stream(connection, hello, case, arguments, reporter)
    result = finish_stream(connection, job, paths, arguments.baud, reporter, observer)

A run that ends early keeps its masks as `<name>.partial.nii.gz`, never under the final name.

From a scanner's folder, `stream_series` prepares a case, streams it and brings the mask back:

    glioslice stream SERIES_FOLDER --port auto --dicom-out result

`result/` then holds the prepared case, the mask and montage of the run, and the mask on the frames
of T1ce and FLAIR as NIfTI and DICOM SEG.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from firmware_host import discovery, handshake, inputs, interrupts, outputs, session
from firmware_host.inputs import StreamedCase
from firmware_host.mask_files import read_mask
from firmware_host.mask_volume import DigestMismatch, MaskVolume
from firmware_host.options import FarEnd
from firmware_host.outputs import OutputPaths
from firmware_host.progress import Reporter, RunStatus, open_reporter, reporting_end
from firmware_host.report import find_card
from firmware_host.viewer.page import PageObserver, open_page
from glioslice import cli, startup
from glioslice.cases import Case, case_name, case_paths
from glioslice.dataset_layouts import MODALITIES, find_dicom
from glioslice.errors import GliosliceError
from glioslice.files import NOTICE, sha256
from glioslice.metrics import format_dice, region_dice, summary_lines
from glioslice.model_card import CARD, find_model, read_card
from glioslice.postprocessing import NO_RULES, PostprocessingRules
from glioslice.wire import messages
from glioslice.wire.connection import Connection, PeerRestarted
from glioslice.wire.link import Counts
from glioslice.wire.messages import BoardHello, HostHello, Mode, VolumeGeometry
from glioslice.wire.ports import open_port

logger = logging.getLogger(__name__)

SERIES_CASE = "case"
"""Name of the case made from series: a folder's name may hold the patient's."""


class SlicesFailed(GliosliceError):
    """The board processed every slice, but failed on some."""


class OutputsFailed(GliosliceError):
    """All masks arrived, but the files of this case cannot be made."""


class UnwritableFile(GliosliceError):
    """A file cannot be written, so that the next case's could not either."""


class Interrupted(SystemExit):
    """Ctrl-C ended a run; its masks are kept."""


@dataclass(frozen=True)
class StreamJob:
    """A run that has started; `played` is the geometry that the board or a replay sent.

    The `rules` are those that the whole volume is post-processed with.
    """

    masks: MaskVolume
    case: StreamedCase
    hello: BoardHello
    choice: HostHello
    rules: PostprocessingRules = NO_RULES
    sender: session.SliceSender | None = None
    played: VolumeGeometry | None = None


@dataclass(frozen=True)
class StreamResult:
    """A complete run: its report, and a line for each file that was written."""

    job: StreamJob
    report: dict[str, Any]
    lines: list[str]


def stream_case(arguments: argparse.Namespace, far_end: FarEnd) -> None:
    """Stream the case that the options name; check first what can be checked without a board."""
    started = time.monotonic()
    with open_reporter(arguments) as reporter:
        source = inputs.given_source(arguments)
        name = case_name(source) if source else None
        paths = choose_outputs(arguments, name) if name or arguments.output else None
        if source:
            reporter.waiting(f"reading {arguments.case or name}")
        case = inputs.load_case(arguments) if source else None
        reporter.waiting(f"waiting for the board on {arguments.port}, agreeing on a baud rate")
        with (
            open_page(arguments.view, reporter) as page,
            reporting_end(reporter),  # before the page, which stays open
            connect_board(arguments, far_end) as (connection, hello),
        ):
            if paths is None:  # the phantom, or what the board or a recording plays
                phantom = Mode.PLAY not in hello.modes and not session.find_replay(connection)
                paths = choose_outputs(arguments, inputs.PHANTOM if phantom else None)
            job = start_stream(connection, hello, case, arguments, reporter)
            observer = PageObserver(page)
            result = finish_stream(connection, job, paths, arguments.baud, reporter, observer)
            total = f"{time.monotonic() - started:.1f} s in all, from reading to writing"
            reporter.result(*result.lines, total, *result_lines(result))
            interrupts.raise_requested()


def choose_outputs(arguments: argparse.Namespace, name: str | None) -> OutputPaths:
    """Return where the files of the case `name` go; raises GliosliceError if they cannot."""
    mask = arguments.output or outputs.default_mask(name)
    paths = outputs.output_paths(mask, arguments.montage, arguments.report, arguments.labels)
    outputs.check_writable(paths, arguments.force)
    return paths


@contextmanager
def connect_board(
    arguments: argparse.Namespace, far_end: FarEnd
) -> Iterator[tuple[Connection, BoardHello]]:
    """Yield the connection to a board whose model is accepted, and its hello.

    Raises GliosliceError if no board is found, if it does not reply, or if its model is unknown.
    """
    port = discovery.resolve_port(arguments.port, arguments.baud)
    command = far_end(arguments) if handshake.is_simulated(port) else None
    with ExitStack() as stack:
        with interrupts.deferred():  # a simulated board that is started is stopped, too
            opened = session.open_recorded_port(
                arguments, lambda: open_port(port, arguments.baud, command=command)
            )
            connection = stack.enter_context(Connection(opened, active=True))
        interrupts.raise_requested()
        hello = handshake.receive_hello(connection, handshake.hello_timeout(port))
        own = find_model(arguments.model) if arguments.model else None
        handshake.check_model(hello, arguments.allow_model, own)
        yield connection, hello


def start_stream(
    connection: Connection,
    hello: BoardHello,
    case: Case | None,
    arguments: argparse.Namespace,
    reporter: Reporter,
) -> StreamJob:
    """Agree with the board on mode and codecs, and start sending slices or receiving masks."""
    rules = find_rules(hello, arguments)
    if replay := session.find_replay(connection):
        choice, masks, streamed, volume = session.start_replay(connection, replay, hello, case)
        return StreamJob(masks, streamed, hello, choice, rules, played=volume)
    mode = handshake.choose_mode(hello, play=arguments.play, has_case=case is not None)
    choice = handshake.make_host_hello(hello, mode, arguments.images)
    if mode is Mode.PLAY:
        messages.send(connection, choice)
        volume, missing = session.receive_played_volume(connection, hello)
        streamed = inputs.played_case(volume, missing)
        if case is not None:  # a simulated board read it from this disk: the montage can be made
            streamed = replace(streamed, name=case.name, images=case.volumes, truth=case.labels)
        masks = MaskVolume(mode, None, inputs.played_crop(volume, hello.window))
        return StreamJob(masks, streamed, hello, choice, rules, played=volume)
    if case is None:
        reporter.result("no CASE given: streaming the phantom, a synthetic head")
        case = inputs.load_case(arguments)
    absent = inputs.absent_channels(hello, case.missing)
    crop, slices = inputs.quantize_slices(case.volumes, hello, case.missing)
    messages.send(connection, choice)  # only now is it certain that slices will follow
    masks, streamed = session.new_mask_volume(choice, crop), inputs.hosted_case(case)
    session.record_placement(connection, streamed, crop)
    sender = session.send_slices(connection, hello, choice, masks, slices, absent)
    return StreamJob(masks, streamed, hello, choice, rules, sender)


def find_rules(hello: BoardHello, arguments: argparse.Namespace) -> PostprocessingRules:
    """Return the rules of post-processing in the card of the board's model.

    There are none with `--raw`, and none for a model whose card this host does not have.
    """
    if arguments.raw:
        return NO_RULES
    own = find_model(arguments.model) if arguments.model else None
    if own is not None and (own.parent / CARD).is_file() and sha256(own) == hello.sha256:
        return read_card(own.parent).rules
    card = find_card(hello.sha256)
    return card.rules if card else NO_RULES


def finish_stream(
    connection: Connection,
    job: StreamJob,
    paths: OutputPaths,
    baud: int | None,
    reporter: Reporter,
    observer: PageObserver,
) -> StreamResult:
    """Receive the masks of a run that has started, and write its files; `baud` is a fixed rate.

    Raises what `receive_case` and `write_case_files` raise. An interrupt during the last files is
    left to the caller (`interrupts.raise_requested`).
    """
    with interrupts.deferred():
        receive_case(connection, job, paths, baud, reporter, observer)
        return write_case_files(connection.counts, job, paths, reporter, observer)


def receive_case(
    connection: Connection,
    job: StreamJob,
    paths: OutputPaths,
    baud: int | None,
    reporter: Reporter,
    observer: PageObserver,
) -> None:
    """Receive the masks of a run that has started; `baud` is a fixed rate.

    Masks received before an early end are kept; then this raises Interrupted for Ctrl-C,
    SlicesFailed or another GliosliceError. After DigestMismatch nothing is kept.
    """
    with interrupts.deferred():
        for warning in job.case.warnings:  # computed while slices are already being sent
            logger.warning("%s: %s", job.case.name, warning)
        status = RunStatus(job.masks, job.case, job.hello, connection, baud)
        observer.start_run(status)
        try:
            receive_all(connection, job, status, reporter, observer)
        except DigestMismatch as error:
            report_case(reporter, job, paths, "failed", cli.one_line(error), None)
            raise
        except (Exception, KeyboardInterrupt) as error:
            keep_partial(connection.counts, job, paths, reporter, observer, error)


def write_case_files(
    counts: Counts,
    job: StreamJob,
    paths: OutputPaths,
    reporter: Reporter,
    observer: PageObserver,
) -> StreamResult:
    """Write the files of a run whose masks have all arrived; `counts` are those of its link.

    Raises UnwritableFile for files that cannot be written, OutputsFailed if they cannot be made,
    and Interrupted for either of them after Ctrl-C.
    """
    with interrupts.deferred():
        try:
            processed = job.masks.postprocessed(job.rules)
            for index in processed.changed:
                observer.add_slice(processed.masks, index)
            job = replace(job, masks=processed.masks)
            report = final_report(job, counts, paths, processed.report())
            observer.set_report(report)
            lines = outputs.write_outputs(paths, job.masks, job.case, report)
        except OSError as error:  # the mask, which is written last, is missing
            failed: GliosliceError = UnwritableFile(cli.one_line(error))
            keep_partial(counts, job, paths, reporter, observer, failed)
        except Exception as error:  # the session is over: a batch goes on
            reason = f"unexpected {type(error).__name__} at the last files: {cli.one_line(error)}"
            failed = OutputsFailed(reason)
            failed.__cause__ = error
            keep_partial(counts, job, paths, reporter, observer, failed)
        report_case(reporter, job, paths, "complete", None, report)
    return StreamResult(job, report, lines)


def keep_partial(
    counts: Counts,
    job: StreamJob,
    paths: OutputPaths,
    reporter: Reporter,
    observer: PageObserver,
    error: BaseException,
) -> NoReturn:
    """Save the masks of a run that `error` ended, and raise what the callers announce."""
    report = final_report(job, counts, paths)
    observer.set_report(report)
    kept = outputs.write_partial(paths, job.masks, job.case, report)
    # A terminal that closes, and a simulated board of its process group, end with the run.
    if isinstance(error, KeyboardInterrupt) or interrupts.requested():
        report_case(reporter, job, paths, "interrupted", None, report)
        print(f"interrupted; {kept}", file=sys.stderr)
        raise Interrupted(startup.INTERRUPTED) from None
    reason = f"{cli.one_line(error)}; {kept}"
    report_case(reporter, job, paths, "failed", reason, report)
    if not isinstance(error, (GliosliceError, OSError)):
        raise error
    kept_kinds = SlicesFailed, OutputsFailed, UnwritableFile
    kind = type(error) if isinstance(error, kept_kinds) else GliosliceError
    raise kind(reason) from error


def report_case(
    reporter: Reporter,
    job: StreamJob,
    paths: OutputPaths,
    state: str,
    error: str | None,
    report: dict[str, Any] | None,
) -> None:
    """Report to a program how a case ended."""
    files = [str(path) for path in paths.all if path.exists()]
    reporter.event("case", case=job.case.name, state=state, error=error, files=files, report=report)


def receive_all(
    connection: Connection,
    job: StreamJob,
    status: RunStatus,
    reporter: Reporter,
    observer: PageObserver,
) -> None:
    """Receive the masks of all slices; raises SlicesFailed if the board failed on some."""
    with reporter.show_run(status) as update:
        received = 0
        while True:
            try:
                for index in session.receive_masks(connection, job.masks, job.sender):
                    received += 1
                    update()
                    observer.add_slice(job.masks, index)
                break
            except PeerRestarted:
                if not received:
                    raise  # it crashes on the same slice again and again
                with interrupts.allowed():
                    hello, sender = session.resume_after_restart(
                        connection, job.hello, job.choice, job.masks,
                        sender=job.sender, played=job.played,
                    )  # fmt: skip
                job, received = replace(job, hello=hello, sender=sender), 0
    if job.masks.failed:
        raise SlicesFailed(outputs.describe_failures(job.masks))


def final_report(
    job: StreamJob,
    counts: Counts,
    paths: OutputPaths,
    postprocessing: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the report of a run that is over, with Dice if the ground truth is known."""
    truth = job.case.truth
    dice = None if truth is None else region_dice(job.masks.labels(), truth)
    known = {"dice": dice, "postprocessing": postprocessing}
    return outputs.compose_report(paths, job.masks, job.case, job.hello, counts, known)


def result_lines(result: StreamResult) -> list[str]:
    """Return the summary of a run."""
    job, report = result.job, result.report
    lines = [f"model: {job.hello.model}, SHA-256 {job.hello.sha256[:16]}..., {report['mode']}"]
    if report["dice"] is not None:
        lines.append(format_dice(report["dice"]))
    lines.append(
        f"{report['seconds']:.1f} s, {report['slices_per_second']:.1f} slices/s, "
        f"{report['bytes_up']:,} bytes up, {report['bytes_down']:,} down, "
        f"frames retransmitted: {report['retransmits']}"
    )
    if changes := report["postprocessing"]:
        lines.append(f"post-processing: {changes['summary']}")
    latencies = list(job.masks.milliseconds.values())
    lines += summary_lines(job.masks.slice_count, latencies, report["volumes_ml"])
    logged = job.case.warnings  # at the start
    return lines + [f"warning: {line}" for line in report["warnings"] if line not in logged]


def holds_series(folder: Path | None) -> bool:
    """Return whether a folder holds DICOM files, at any depth, and no case."""
    if folder is None or not folder.is_dir():
        return False
    try:
        case_paths(folder)
    except GliosliceError:
        return find_dicom(folder) is not None
    return False


def stream_series(arguments: argparse.Namespace, far_end: FarEnd) -> None:
    """Prepare a study, stream its case, and bring the mask back; raises GliosliceError."""
    if find_spec("scanner") is None:
        raise GliosliceError(
            f"{arguments.case}: holds DICOM series, which need a checkout of glioslice with the "
            "extra scanner; here only a prepared case can be streamed"
        )
    from scanner import check_installed

    check_installed()
    from scanner.brain_extraction import DEEPBET, check_method
    from scanner.case_files import check_free, write_case
    from scanner.pipeline import prepare_case
    from scanner.prepare import load_study, show_progress
    from scanner.restore import SHOWN, output_files, restore_case

    folder = arguments.dicom_out
    if folder is None:
        raise GliosliceError(
            f"{arguments.case}: holds DICOM series; name --dicom-out DIR for the results"
        )
    extraction = arguments.brain_extraction or DEEPBET
    check_method(extraction)
    case, mask = folder / SERIES_CASE, arguments.output or folder / "mask.nii.gz"
    check_free(case, force=arguments.force)
    paths = outputs.output_paths(mask, arguments.montage, arguments.report, arguments.labels)
    outputs.check_writable(paths, arguments.force)
    output_files(folder, SHOWN, dicom=True, force=arguments.force)
    arguments.port = check_port(arguments)
    given = {m: str(getattr(arguments, m)) for m in MODALITIES if getattr(arguments, m)}
    sources, link = load_study(arguments.case, given, arguments.study)
    prepared = prepare_case(sources, extraction, show_progress)
    for warning in prepared.warnings:
        logger.warning("%s", warning)
    write_case(case, prepared, force=arguments.force)
    arguments.case, arguments.output = case, mask
    vars(arguments).update(dict.fromkeys(MODALITIES))  # they named series; now CASE is named
    stream_case(arguments, far_end)
    labels, _, _ = read_mask(mask, arguments.labels)
    files = restore_case(labels, case, folder, link, force=arguments.force)
    with open_reporter(arguments) as reporter:
        reporter.result(*(f"mask on the source: {path}" for path in files), NOTICE)


def check_port(arguments: argparse.Namespace) -> str:
    """Return the port that the options name; raises GliosliceError if it cannot be opened now.

    Preparing a case takes half a minute, after which nobody wants to hear of a missing cable.
    """
    port = discovery.resolve_port(arguments.port, arguments.baud)
    if not handshake.is_simulated(port):
        open_port(port, arguments.baud).close()
    return port
