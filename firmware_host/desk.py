"""One run at the desk, from the first check to the last line: what `stream.py` does.

A run that ends early keeps what arrived as `<name>.partial.nii.gz`, never under the final name.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from firmware_host import board, inputs, outputs, session
from firmware_host.arrived import DigestWrong, Run
from firmware_host.bar import bar
from firmware_host.inputs import Source
from glioslice import command
from glioslice.cases import Case
from glioslice.errors import GliosliceError
from glioslice.metrics import region_dice, volumes_ml
from glioslice.summary import summary_lines
from glioslice.wire import messages
from glioslice.wire.connection import Connection
from glioslice.wire.messages import BoardHello, Mode
from glioslice.wire.ports import open_port

FarEnd = Callable[[argparse.Namespace], list[str]]


@dataclass(frozen=True)
class Job:
    """A run that has begun, and what it is about."""

    run: Run
    source: Source
    feeder: session.Feeder | None = None


def stream(arguments: argparse.Namespace, far_end: FarEnd) -> None:
    """Do what the command line says; everything that can be refused early is.

    `far_end` returns the command that a simulated line has at its end.
    """
    files = outputs.targets(arguments.output, arguments.montage, arguments.report)
    outputs.check_writable(files, arguments.force)
    case = inputs.case_at(arguments.input) if arguments.input else None
    program = far_end(arguments) if board.is_simulated(arguments.port) else None
    with Connection(
        open_port(arguments.port, arguments.baud, command=program), active=True
    ) as line:
        hello = board.greet(line, board.patience_for(arguments.port))
        board.check_model(hello, arguments.allow_model, arguments.model)
        job = begin(line, hello, case, arguments)
        try:
            receive(line, job)
        except DigestWrong:
            raise
        except (GliosliceError, KeyboardInterrupt) as error:
            report = outputs.report_of(job.run, job.source, hello, line.counts)
            kept = outputs.keep_partial(files, job.run, job.source, report)
            if isinstance(error, KeyboardInterrupt):
                print(f"interrupted; {kept}", file=sys.stderr)
                raise SystemExit(130) from None
            raise GliosliceError(f"{command.one_line(error)}; {kept}") from error
        report = outputs.report_of(job.run, job.source, hello, line.counts)
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
        return Job(Run(mode, None, inputs.crop_of_volume(volume, hello.window)), source)
    if case is None:
        print("no --input: streaming the phantom, a made-up head", flush=True)
        case = inputs.case_at(None)
    crop, slices = inputs.prepare(case.images, hello)
    run = session.begin_serving(line, choice, crop)
    feeder = session.Feeder(line, choice.image_codec, slices)
    feeder.start()
    return Job(run, inputs.source_of_case(case), feeder)


def receive(line: Connection, job: Job) -> None:
    """Gather the masks; raises GliosliceError if some are missing at the end."""
    what = f"segmenting {job.source.name or 'what the board plays'}"
    with bar(job.run.slices, what) as advance:
        for _ in session.arrivals(line, job.run, job.feeder):
            advance()
    if job.run.failed:
        raise GliosliceError(outputs.failures(job.run))


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
