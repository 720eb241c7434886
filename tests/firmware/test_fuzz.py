"""libFuzzer makes up inputs for the firmware's readers, under ASan and UBSan.

pytest tests/firmware/test_fuzz.py -s --fuzz-inputs 1000000     # its log: fuzz.log
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from glioslice.wire.image_codecs import webp_bitstream
from tests.firmware.library import TESTS, compile_host

pytestmark = pytest.mark.slow

SHARES = {"frames": 1.0, "link": 0.5, "messages": 0.02, "vp8": 0.05, "masks": 0.1}
"""Of --fuzz-inputs: a message may be a slice, which takes a thousand times as long as a frame."""


def write_corpus(folder: Path, target: str) -> None:
    """Write inputs to begin with: VP8 images, which mutations alone would hardly find."""
    folder.mkdir()
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


@pytest.mark.parametrize("target", SHARES)
def test_no_input_breaks_a_reader(target: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    options = ["-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    options.append(f"-DFUZZ_{target.upper()}")
    program = compile_host(tmp_path / "fuzz", "clang", options, [TESTS / "fuzz.c"])
    inputs = max(200, round(pytestconfig.getoption("--fuzz-inputs") * SHARES[target]))
    write_corpus(tmp_path / "corpus", target)
    # A process inherits the peak memory of the one that starts it, so only allocations are limited.
    limits = ["-max_len=2048", "-rss_limit_mb=0", "-malloc_limit_mb=64"]
    command = [str(program), f"-runs={inputs}", "-seed=1", *limits]
    result = subprocess.run(
        [*command, "corpus"], cwd=tmp_path, capture_output=True, text=True, timeout=3600
    )
    last = [line for line in result.stderr.splitlines() if line.startswith(("#", "Done"))]
    print(f"{target}: {inputs} inputs; {last[-1] if last else ''}")
    assert result.returncode == 0, result.stderr[-4000:]
