"""The key of a run: what would cross alike has the same one, and nothing else has."""

from dataclasses import replace

import numpy as np
import pytest

from firmware_host.session import run_key
from glioslice.wire import image_codecs
from glioslice.wire.codecs import IMAGES, LOSSLESS
from tests.firmware_host.scripted import HELLO

SLICES = np.arange(3 * 8 * 10 * 4).reshape(3, 8, 10, 4).astype(np.int8)
KNOWN = replace(HELLO, boot=7)


def test_a_run_is_known_by_board_codec_and_slices() -> None:
    other = SLICES.copy()
    other[2, 7, 9, 3] ^= 1
    keys = {run_key(KNOWN, number, SLICES) for number in IMAGES}
    keys |= {run_key(KNOWN, 3, other), run_key(replace(KNOWN, boot=8), 3, SLICES)}
    keys |= {run_key(KNOWN, 3, SLICES[:2]), run_key(KNOWN, 3, SLICES.reshape(3, 10, 8, 4))}
    assert len(keys) == len(IMAGES) + 4 and 0 not in keys
    assert run_key(KNOWN, 3, SLICES.copy()) in keys


def test_another_encoder_of_lossy_slices_makes_another_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {number: run_key(KNOWN, number, SLICES) for number in IMAGES}
    monkeypatch.setattr(image_codecs, "LOSSY_EFFORT", (4, 40))
    after = {number: run_key(KNOWN, number, SLICES) for number in IMAGES}
    assert {number for number in IMAGES if before[number] == after[number]} == set(LOSSLESS)
