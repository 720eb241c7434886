"""Fuzz the readers of the wire: whatever bytes arrive, they raise nothing but our own errors.

    pytest tests/fuzz -s                           a hundredth of the run in fuzz.log
    pytest tests/fuzz -s --fuzz-inputs 10000000    that run: 72 minutes

`readers.py` holds the readers. atheris keeps inputs that reach new lines of code and mutates them
further. Any exception but a GliosliceError fails the test, and so do 256 MB of memory and an input
that takes ten seconds; the input is then kept in build/fuzz/. `rounds.py` splits the inputs.
"""

from pathlib import Path

import numpy as np
import pytest

from glioslice.wire.codecs import IMAGES, MASKS, encode_image, encode_mask
from tests.fuzz.readers import IMAGE_SHAPE, PREVIOUS
from tests.fuzz.rounds import fuzz, run_fuzzer
from tools.wire_vectors import vectors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

MEMORY_MB = 256
LONGEST_INPUT = 1536

BROKEN_READER = """
import sys
from glioslice.wire import packets
packets.open_from_bytes = lambda body: [][len(body)]
from tests.fuzz import target
target.main(sys.argv[1:])
"""


def first_inputs() -> list[bytes]:
    """Return what the fuzzer starts from: the test vectors, for each reader."""
    published = vectors()
    bodies = [bytes.fromhex(packet["body"]) for packet in published["packets"]]
    inputs = [b"\0" + bytes.fromhex(f["frame"]) for f in published["frames"] + published["packets"]]
    inputs += [b"\1" + body for body in bodies]
    inputs += [b"\2" + bytes.fromhex(message["bytes"]) for message in published["messages"]]
    mask = PREVIOUS[::-1].copy()
    inputs += [bytes([3, 2 * codec]) + encode_mask(codec, mask) for codec in MASKS]
    inputs += [b"\3\7" + encode_mask(3, mask, PREVIOUS)]
    ramp = np.arange(np.prod(IMAGE_SHAPE)).reshape(IMAGE_SHAPE).astype(np.int8)
    inputs += [bytes([8, codec]) + encode_image(codec, ramp) for codec in IMAGES]
    inputs += [b"\7" + (len(b) - 1).to_bytes(2, "little") + b for b in bodies]
    return inputs


def test_readers_raise_nothing_but_our_own_errors(
    pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    inputs = int(pytestconfig.getoption("--fuzz-inputs"))
    fuzz("wire", first_inputs(), inputs, tmp_path, memory_mb=MEMORY_MB, longest=LONGEST_INPUT)


def test_a_reader_that_raises_another_error_is_found(tmp_path: Path) -> None:
    options = ["-runs=100000", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    done = run_fuzzer(["-c", BROKEN_READER, "wire"], *options, scratch=tmp_path)
    assert done.returncode != 0
    assert "IndexError" in done.stdout + done.stderr
