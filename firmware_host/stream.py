"""Stream a case to a board over a serial line, or receive what it plays; masks become a volume.

    python firmware_host/stream.py --port /dev/ttyUSB0 [--input CASE] [--output mask.nii.gz]
    python firmware_host/stream.py --port sim:// --input CASE     # a board on a virtual line
    python firmware_host/stream.py --port P --input CASE --view   # with a live page in the browser
    python firmware_host/stream.py --port auto --input DIR --output masks    # all cases of a folder
    python firmware_host/stream.py --list                         # what is at which port?
    python firmware_host/stream.py --open mask.nii.gz --input CASE    # the page of a finished case
    python firmware_host/stream.py --doctor [--port P]            # what is wrong with the line?

A run that ends early keeps what arrived as `<name>.partial.nii.gz`, never under the final name.
A report's name says what it is: .html for people, .csv volumes by slice, else JSON that holds: case
(null for one played by a board), complete, mode, images (codec), lossless, slices, masks, seconds,
slices_per_second, device_ms {p50, p90, p99}, bytes_up, bytes_down, retransmits (the host's),
volumes_ml and diameters_mm {WT, TC, ET}, quality {mean, below, unsure: the Z of slices to look at},
model {name, sha256}, dice (null without truth), labels, warnings.
"""

import argparse
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from firmware_host.options import parsed
from glioslice import cli
from glioslice.malloc import settle_memory

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What a `kill` and a closed terminal send; Windows has no SIGHUP."""

FarEnd = Callable[[argparse.Namespace], list[str]]


def main(words: Sequence[str] | None = None, far_end: FarEnd | None = None) -> None:
    """Read the command line and stream.

    `far_end` returns the command that `sim://` starts, by default the device's own.
    """
    stop_like_ctrl_c()
    settle_memory()
    cli.run(lambda given: work(given, far_end), parsed(words))


def stop_like_ctrl_c() -> None:
    """Let a `kill` or a closed terminal end a run like Ctrl-C: what arrived is kept."""
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Let Ctrl-C leave on the spot while modules load: numpy makes an ImportError of it."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        os.write(2, b"interrupted\n")
        os._exit(130)

    numbers = (signal.SIGINT, *ENDING)
    # One that is ignored, as under nohup, stays so.
    before = {n: signal.signal(n, leave) for n in numbers if callable(signal.getsignal(n))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def work(arguments: argparse.Namespace, far_end: FarEnd | None) -> None:
    """Do what the command line says."""
    with leaving_at_once():
        from firmware_host import batch, discovery, doctor, handshake, run
        from firmware_host.viewer import finished_case

    if arguments.open:
        finished_case.show(arguments)
    elif arguments.list:
        discovery.work(arguments)
    else:
        several = batch.cases_in(arguments.input)
        task = doctor.work if arguments.doctor else batch.work if several else run.stream
        task(arguments, far_end or handshake.device_command)


if __name__ == "__main__":
    main()
