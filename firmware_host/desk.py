"""One run at the desk, from the first check to the last line: what `stream.py` does.

A run that ends early keeps what arrived as `<name>.partial.nii.gz`, never under the final name.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from firmware_host import board, inputs, outputs, resuming, session
from firmware_host.arrived import DigestWrong, Run
from firmware_host.bar import bar
from firmware_host.inputs import Source
from firmware_host.view.watching import Watcher, watching
from glioslice import command
from glioslice.cases import Case
from glioslice.errors import GliosliceError
from glioslice.metrics import region_dice, volumes_ml
from glioslice.summary import summary_lines
from glioslice.wire import messages
from glioslice.wire.connection import Connection, PeerRestarted
from glioslice.wire.messages import BoardHello, HostHello, Mode, Volume
from glioslice.wire.ports import open_port

FarEnd = Callable[[argparse.Namespace], list[str]]


@dataclass(frozen=True)
class Job:
    """A run that has begun, and what it is about."""

    run: Run
    source: Source
    hello: BoardHello
    choice: HostHello
    feeder: session.Feeder | None = None
    volume: Volume | None = None


def stream(arguments: argparse.Namespace, far_end: FarEnd) -> None:
    """Do what the command line says; everything that can be refused early is.

    `far_end` returns the command that a simulated line has at its end.
    """
    files = outputs.targets(arguments.output, arguments.montage, arguments.report, arguments.labels)
    outputs.check_writable(files, arguments.force)
    case = inputs.case_at(arguments.input) if arguments.input else None
    program = far_end(arguments) if board.is_simulated(arguments.port) else None
    with (
        watching(arguments.view) as watcher,
        Connection(
            open_port(arguments.port, arguments.baud, command=program),
            active=True,
            say=watcher.tell,
        ) as line,
    ):
        hello = board.greet(line, board.patience_for(arguments.port))
        board.check_model(hello, arguments.allow_model, arguments.model)
        job = begin(line, hello, case, arguments)
        watcher.begin(job.run, job.source, hello, line, arguments)
        try:
            receive(line, job, watcher)
        except DigestWrong:
            raise
        except (GliosliceError, KeyboardInterrupt) as error:
            report = outputs.report_of(job.run, job.source, hello, line.counts)
            watcher.settled(report)
            kept = outputs.keep_partial(files, job.run, job.source, report)
            if isinstance(error, KeyboardInterrupt):
                print(f"interrupted; {kept}", file=sys.stderr)
                raise SystemExit(130) from None
            raise GliosliceError(f"{command.one_line(error)}; {kept}") from error
        report = outputs.report_of(job.run, job.source, hello, line.counts)
        watcher.settled(report)
        for text in outputs.write_complete(files, job.run, job.source, report):
            print(text)
        for text in closing_lines(job.run, job.source, hello, report):
            print(text)


def begin(
    line: Connection, hello: BoardHello, case: Case | None, arguments: argparse.Namespace
) -> Job:
    """Agree with the board on mode and codecs, and let the slices or the masks flow."""
    mode = board.choose_mode(hello, play=arguments.play, has_input=case is not None)
    choice = board.answer(hello, mode, arguments.images)
    messages.send(line, choice)
    if mode is Mode.PLAY:
        volume = session.begin_playing(line)
        source = inputs.source_of_volume(volume)
        if case is not None:  # a simulated board read it from this disk: the montage can be made
            source = replace(source, name=case.name, images=case.images, truth=case.labels)
        run = Run(mode, None, inputs.crop_of_volume(volume, hello.window))
        return Job(run, source, hello, choice, volume=volume)
    if case is None:
        print("no --input: streaming the phantom, a made-up head", flush=True)
        case = inputs.case_at(None)
    crop, slices = inputs.prepare(case.images, hello)
    run = session.new_run(choice, crop)
    feeder = session.serve(line, hello, choice, run, slices)
    return Job(run, inputs.source_of_case(case), hello, choice, feeder)


def receive(line: Connection, job: Job, watcher: Watcher) -> None:
    """Gather the masks; raises GliosliceError if some are missing at the end."""
    what = f"segmenting {job.source.name or 'what the board plays'}"
    with bar(job.run.slices, what) as advance:
        settled = 0
        while True:
            try:
                for index in session.arrivals(line, job.run, job.feeder):
                    settled += 1
                    advance()
                    watcher.arrived(job.run, index)
                break
            except PeerRestarted:
                if not settled:
                    raise  # it falls over the same slice again and again
                watcher.tell(f"{line.name}: the board has restarted; it does what is missing")
                job, settled = rejoined(line, job), 0
    if job.run.failed:
        raise GliosliceError(outputs.failures(job.run))


def rejoined(line: Connection, job: Job) -> Job:
    """Return the job as it goes on with the board that has restarted."""
    hello, feeder = resuming.rejoin(
        line, job.hello, job.choice, job.run, feeder=job.feeder, volume=job.volume
    )
    return replace(job, hello=hello, feeder=feeder)


def closing_lines(
    run: Run, source: Source, hello: BoardHello, report: dict[str, object]
) -> list[str]:
    """Return the summary for people."""
    labels = run.labels()
    lines = [f"model: {hello.model}, SHA-256 {hello.sha256[:16]}..., {report['mode']}"]
    if source.truth is not None:
        scores = region_dice(labels, source.truth)
        lines.append(
            "Dice against its truth: " + "  ".join(f"{k} {v:.3f}" for k, v in scores.items())
        )
    lines.append(
        f"{report['seconds']:.1f} s, {report['slices_per_second']:.1f} slices/s, "
        f"{report['bytes_up']:,} bytes up, {report['bytes_down']:,} down, "
        f"{report['retransmits']} retransmits"
    )
    return lines + summary_lines(run.slices, run.milliseconds, volumes_ml(labels))
