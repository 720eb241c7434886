"""One run from the first slice to its files, whatever happens on the way.

job = begin(line, hello, case, arguments, teller)
done = carry_out(line, job, files, arguments.baud, teller, watcher)

One run at the desk, from the first check to the last line: what `stream.py` does with a case.

A run that ends early keeps what arrived as `<name>.partial.nii.gz`, never under the final name.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_host import discovery, handshake, inputs, outputs, recording, session
from firmware_host.confidence import unsure_line
from firmware_host.inputs import Source
from firmware_host.mask_volume import DigestWrong, Run
from firmware_host.outputs import Targets
from firmware_host.progress import INTERRUPTED, Teller, Underway, ending, teller_of
from firmware_host.viewer.observer import Watcher, watching
from glioslice import cli
from glioslice.cases import Case
from glioslice.errors import GliosliceError
from glioslice.metrics import region_dice
from glioslice.summary import dice_line, summary_lines
from glioslice.wire import messages
from glioslice.wire.connection import Connection, PeerRestarted
from glioslice.wire.messages import BoardHello, HostHello, Mode, Volume
from glioslice.wire.ports import open_port


class SlicesFailed(GliosliceError):
    """The board has worked on every slice, but some have no mask."""


class Stopped(SystemExit):
    """Ctrl-C ended a run; what arrived is kept."""


@dataclass(frozen=True)
class Job:
    """A run that has begun, and what it is about."""

    run: Run
    source: Source
    hello: BoardHello
    choice: HostHello
    feeder: session.Feeder | None = None
    volume: Volume | None = None


@dataclass(frozen=True)
class Done:
    """A run that is complete: its report, and a line for each file that was written."""

    job: Job
    report: dict[str, Any]
    lines: list[str]


def begin(
    line: Connection,
    hello: BoardHello,
    case: Case | None,
    arguments: argparse.Namespace,
    teller: Teller,
) -> Job:
    """Agree with the board on mode and codecs, and let the slices or the masks flow."""
    if replay := recording.replay_of(line):
        choice, run, source, volume = recording.begin(line, replay, hello, case)
        return Job(run, source, hello, choice, volume=volume)
    mode = handshake.choose_mode(hello, play=arguments.play, has_input=case is not None)
    choice = handshake.answer(hello, mode, arguments.images)
    if mode is Mode.PLAY:
        messages.send(line, choice)
        volume = session.begin_playing(line)
        source = inputs.source_of_volume(volume)
        if case is not None:  # a simulated board read it from this disk: the montage can be made
            source = replace(source, name=case.name, images=case.images, truth=case.labels)
        run = Run(mode, None, inputs.crop_of_volume(volume, hello.window))
        return Job(run, source, hello, choice, volume=volume)
    if case is None:
        teller.said("no --input: streaming the phantom, a made-up head")
        case = inputs.case_at(None)
    crop, slices = inputs.prepare(case.images, hello)
    messages.send(line, choice)  # now that it is sure that there will be slices
    run, source = session.new_run(choice, crop), inputs.source_of_case(case)
    recording.note(line, source, crop)
    feeder = session.serve(line, hello, choice, run, slices)
    for oddity in source.oddities:  # looked for while slices cross already
        teller.told(f"warning: {oddity}")
    return Job(run, source, hello, choice, feeder)


def carry_out(
    line: Connection,
    job: Job,
    files: Targets,
    baud: int | None,
    teller: Teller,
    watcher: Watcher,
) -> Done:
    """Gather the masks of a run that has begun, and write its files; `baud` is a fixed rate.

    What arrived before an early end is kept; then this raises Stopped for Ctrl-C, SlicesFailed or
    another GliosliceError, OSError for files that cannot be written, and DigestWrong: then nothing
    is kept.
    """
    underway = Underway(job.run, job.source, job.hello, line, baud)
    watcher.begin(underway)

    def over(state: str, error: str | None, report: dict[str, Any] | None) -> None:
        case, there = job.source.name, [str(path) for path in files.paths if path.exists()]
        teller.event("case", case=case, state=state, error=error, files=there, report=report)

    try:
        receive(line, job, underway, teller, watcher)
    except DigestWrong as error:
        over("failed", cli.one_line(error), None)
        raise
    except (GliosliceError, KeyboardInterrupt) as error:
        report = final_report(job, line)
        watcher.settled(report)
        kept = outputs.keep_partial(files, job.run, job.source, report)
        if isinstance(error, KeyboardInterrupt):
            over("interrupted", None, report)
            print(f"interrupted; {kept}", file=sys.stderr)
            raise Stopped(INTERRUPTED) from None
        why = f"{cli.one_line(error)}; {kept}"
        over("failed", why, report)
        kind = SlicesFailed if isinstance(error, SlicesFailed) else GliosliceError
        raise kind(why) from error
    report = final_report(job, line)
    watcher.settled(report)
    lines = outputs.write_complete(files, job.run, job.source, report)
    over("complete", None, report)
    return Done(job, report, lines)


def receive(
    line: Connection, job: Job, underway: Underway, teller: Teller, watcher: Watcher
) -> None:
    """Gather the masks; raises SlicesFailed if some are missing at the end."""
    with teller.showing(underway) as arrived:
        settled = 0
        while True:
            try:
                for index in session.arrivals(line, job.run, job.feeder):
                    settled += 1
                    arrived()
                    watcher.arrived(job.run, index)
                break
            except PeerRestarted:
                if not settled:
                    raise  # it falls over the same slice again and again
                watcher.tell(f"{line.name}: the board has restarted; it does what is missing")
                job, settled = rejoined(line, job), 0
    if job.run.failed:
        raise SlicesFailed(outputs.failures(job.run))


def rejoined(line: Connection, job: Job) -> Job:
    """Return the job as it goes on with the board that has restarted."""
    hello, feeder = session.rejoin(
        line, job.hello, job.choice, job.run, feeder=job.feeder, volume=job.volume
    )
    return replace(job, hello=hello, feeder=feeder)


def final_report(job: Job, line: Connection) -> dict[str, Any]:
    """Return the report of a run that is over, with its Dice where the ground truth is known."""
    truth = job.source.truth
    dice = None if truth is None else dice_of(job.run.labels(), truth)
    return outputs.report_of(job.run, job.source, job.hello, line.counts) | {"dice": dice}


def dice_of(labels: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, float]:
    """Return `region_dice` of the box around both: the same, without 60 MB of empty air."""
    held = (labels | truth) != 0
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(held.any(axis=others))
        box.append(slice(filled[0], filled[-1] + 1) if filled.size else slice(0, 0))
    return region_dice(labels[tuple(box)], truth[tuple(box)])


MASK = Path("mask.nii.gz")

FarEnd = Callable[[argparse.Namespace], list[str]]


def stream(arguments: argparse.Namespace, far_end: FarEnd) -> None:
    """Do what the command line says; everything that can be refused early is.

    `far_end` returns the command that a simulated line has at its end.
    """
    teller = teller_of(arguments)
    with ending(teller):
        mask = arguments.output or MASK
        files = outputs.targets(mask, arguments.montage, arguments.report, arguments.labels)
        outputs.check_writable(files, arguments.force)
        case = inputs.case_at(arguments.input) if arguments.input else None
        with (
            watching(arguments.view, teller) as watcher,
            ending(teller),  # before the page, which stays
            at_the_board(arguments, far_end, watcher) as (line, hello),
        ):
            job = begin(line, hello, case, arguments, teller)
            done = carry_out(line, job, files, arguments.baud, teller, watcher)
            teller.said(*done.lines, *closing_lines(done))


@contextmanager
def at_the_board(
    arguments: argparse.Namespace, far_end: FarEnd, watcher: Watcher
) -> Iterator[tuple[Connection, BoardHello]]:
    """Yield the line to a board whose model may run, and its hello.

    Raises GliosliceError for a board that is not found, does not answer or has an unknown model.
    """
    port = discovery.port_of(arguments.port, arguments.baud, watcher.tell)
    program = far_end(arguments) if handshake.is_simulated(port) else None
    opened = recording.port_for(
        arguments, lambda: open_port(port, arguments.baud, command=program), watcher.tell
    )
    with Connection(opened, active=True, say=watcher.tell) as line:
        hello = handshake.greet(line, handshake.patience_for(port))
        handshake.check_model(hello, arguments.allow_model, arguments.model)
        yield line, hello


def closing_lines(done: Done) -> list[str]:
    """Return the summary for people."""
    run, hello, report = done.job.run, done.job.hello, done.report
    scores = report["dice"]
    lines = [f"model: {hello.model}, SHA-256 {hello.sha256[:16]}..., {report['mode']}"]
    if scores is not None:
        lines.append(dice_line(scores))
    lines.append(
        f"{report['seconds']:.1f} s, {report['slices_per_second']:.1f} slices/s, "
        f"{report['bytes_up']:,} bytes up, {report['bytes_down']:,} down, "
        f"{report['retransmits']} retransmits"
    )
    unsure = unsure_line(report["quality"])
    lines += [f"look: {unsure}"] if unsure else []
    return lines + summary_lines(run.slices, run.milliseconds, report["volumes_ml"])
