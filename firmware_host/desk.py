"""One run at the desk, from the first check to the last line: what `stream.py` does with a case.

A run that ends early keeps what arrived as `<name>.partial.nii.gz`, never under the final name.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from firmware_host import board, finding, inputs, outputs, recorded
from firmware_host.confidence import unsure_line
from firmware_host.running import Done, begin, carry_out
from firmware_host.telling import ending, teller_of
from firmware_host.view.watching import Watcher, watching
from glioslice.summary import dice_line, summary_lines
from glioslice.wire.connection import Connection
from glioslice.wire.messages import BoardHello
from glioslice.wire.ports import open_port

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
    port = finding.port_of(arguments.port, arguments.baud, watcher.tell)
    program = far_end(arguments) if board.is_simulated(port) else None
    opened = recorded.port_for(
        arguments, lambda: open_port(port, arguments.baud, command=program), watcher.tell
    )
    with Connection(opened, active=True, say=watcher.tell) as line:
        hello = board.greet(line, board.patience_for(port))
        board.check_model(hello, arguments.allow_model, arguments.model)
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
