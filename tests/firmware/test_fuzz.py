"""libFuzzer makes up inputs for the firmware's readers, under ASan and UBSan.

pytest tests/firmware/test_fuzz.py -s --timeout 0 --fuzz-inputs 10000000     # its log: fuzz.log
"""

import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from glioslice.wire.image_codecs import webp_bitstream
from tests.firmware.library import TESTS, compile_host

pytestmark = pytest.mark.slow

LONGEST = {"frames": 1200, "link": 512, "messages": 512, "vp8": 512, "masks": 80}
"""Bytes of an input: the longest frame and a little more; two masks of 12 x 12 pixels."""

SMALLEST = ["-DNETWORK_ROWS=112", "-DNETWORK_COLUMNS=96"]
"""The smallest slice that still holds what encodes its mask: messages are fuzzed, not masks."""


def write_corpus(folder: Path, target: str) -> None:
    """Write inputs to begin with: VP8 images, which mutations alone would hardly find."""
    folder.mkdir()
    if target == "messages":  # a lossy slice without structure
        flat = np.full((4 * 112, 96), 90, np.uint8)
        message = b"\4\3\0\0" + webp_bitstream(flat, 6, 40, lossless=False)
        (folder / "slice").write_bytes(struct.pack("<H", len(message)) + message)
    if target != "vp8":
        return
    chance = np.random.default_rng(1)
    for number, quality in enumerate((0, 20, 40, 90)):
        levels = chance.integers(0, 256, (32, 32)).astype(np.uint8)
        payload = webp_bitstream(levels, 6, quality, lossless=False)
        first = (payload[0] >> 5) | payload[1] << 3 | payload[2] << 11
        share = -(-256 * first // (len(payload) - 10))
        kept = payload[:4] + bytes([min(share, 255)]) + payload[5:]
        (folder / str(number)).write_bytes(kept)


@pytest.mark.parametrize("target", LONGEST)
def test_no_input_breaks_a_reader(target: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    options = ["-O2", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    options.append(f"-DFUZZ_{target.upper()}")
    options += SMALLEST if target == "messages" else []
    program = compile_host(tmp_path / "fuzz", "clang", options, [TESTS / "fuzz.c"])
    inputs = pytestconfig.getoption("--fuzz-inputs")
    write_corpus(tmp_path / "corpus", target)
    # A process inherits the peak memory of the one that starts it, so only allocations are limited.
    limits = [f"-max_len={LONGEST[target]}", "-rss_limit_mb=0", "-malloc_limit_mb=64"]
    result = subprocess.run(
        [str(program), f"-runs={inputs}", "-seed=1", *limits, "corpus"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    [done] = re.findall(r"^Done (\d+) runs in (\d+) second", result.stderr, re.MULTILINE)
    covered = re.findall(r"cov: (\d+) ft: (\d+)", result.stderr)[-1]
    print(f"{target}: {done[0]} inputs in {done[1]} s, {covered[0]} edges, {covered[1]} features")
    assert int(done[0]) >= inputs and int(covered[0]) > 20
