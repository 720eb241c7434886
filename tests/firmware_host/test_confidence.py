"""What the desk makes of the quality bytes: which slices are marked, where, and in which words."""

import csv
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.confidence_tables import read_slices, threshold
from firmware_host.confidence import DOUBTFUL, quality_of, ranges, unsure_line
from firmware_host.mask_volume import Run
from firmware_host.volumetry import Tally, csv_of
from glioslice.preprocessing import Crop
from glioslice.wire.codecs import encode_mask
from glioslice.wire.messages import UNKNOWN, Empty, Mask, Mode
from tests.conftest import Write
from tests.firmware_host.conftest import Desk
from tests.firmware_host.test_reports import serve


def run_of(bytes_of: Iterable[int]) -> Run:
    """A run from Z 3 on: masks of 1, 2, 3... pixels, and an empty one at the end."""
    said = list(bytes_of)
    run = Run(Mode.SERVE, "webp", Crop((20, 20, 30), (0, 0), (3, 3 + len(said)), (16, 16)))
    for index, byte in enumerate(said[:-1]):
        mask = np.zeros((16, 16), np.uint8)
        mask[2, 2 : 3 + index] = 2
        run.take(Mask(index, 1, 1000, encode_mask(1, mask), byte))
    run.take(Empty(len(said) - 1, (900,), (said[-1],)))
    return run


def told(run: Run) -> dict[str, object]:
    return quality_of(run, Tally().catch_up(run))


def test_slices_below_the_threshold_are_marked() -> None:
    said = told(run_of((DOUBTFUL, DOUBTFUL - 1, 254, 0, UNKNOWN, DOUBTFUL - 1)))
    assert said["unsure"] == [4, 6, 8]
    assert said["below"] == DOUBTFUL


def test_the_mean_counts_pixels_and_knows_what_it_does_not_know() -> None:
    assert told(run_of((100, UNKNOWN, 200, 7)))["mean"] == (1 * 100 + 3 * 200) / 4
    assert told(run_of((UNKNOWN, UNKNOWN, UNKNOWN))) == {
        "mean": None, "below": DOUBTFUL, "unsure": [],
    }  # fmt: skip


def test_what_has_not_arrived_is_not_marked() -> None:
    run = Run(Mode.SERVE, "webp", Crop((20, 20, 30), (0, 0), (3, 9), (16, 16)))
    assert told(run) == {"mean": None, "below": DOUBTFUL, "unsure": []}


def test_a_column_of_the_table() -> None:
    run = run_of((10, UNKNOWN, 200))
    rows = list(csv.DictReader(csv_of(run, Tally().catch_up(run)).splitlines()))
    assert [row["quality"] for row in rows] == ["10", "", "200"]


def test_in_words() -> None:
    assert unsure_line({"unsure": []}) is None
    assert unsure_line({"unsure": [9]}) == "the network is unsure of 1 slice: Z 9"
    line = "the network is unsure of 4 slices: Z 3 to 5, 9"
    assert unsure_line({"unsure": [3, 4, 5, 9]}) == line


@given(st.sets(st.integers(0, 60)))
def test_ranges_name_every_number_once(numbers: set[int]) -> None:
    spans = [span.split(" to ") for span in ranges(sorted(numbers)).split(", ") if span]
    named = [n for span in spans for n in range(int(span[0]), int(span[-1]) + 1)]
    assert named == sorted(numbers)
    assert all(int(b[0]) > int(a[-1]) + 1 for a, b in pairwise(spans))


def test_the_threshold_is_the_one_that_was_measured() -> None:
    assert threshold(read_slices()) == DOUBTFUL


def test_reports_and_terminal_name_the_slices(
    desk: Desk, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = [tmp_path / name for name in ("r.json", "r.html")]
    words = [word for path in reports for word in ("--report", path)]
    out = ("--input", write_case(), "--output", tmp_path / "m.nii.gz", *words)
    assert desk("serve", serve, *out).code == 0
    told = capsys.readouterr()
    report = json.loads(reports[0].read_text())
    page = reports[1].read_text()
    marked = report["quality"]["unsure"]
    line = f"he network is unsure of {len(marked)} slices: Z {ranges(marked)}"
    assert marked == [3 + index for index in range(14) if 100 + 10 * index < DOUBTFUL]
    assert line in told.out
    assert any(line in warning for warning in report["warnings"])
    assert line in page
    assert page.count("<polygon") == len(marked)
    [odd] = [warning for warning in report["warnings"] if "unlike the brains" in warning]
    assert f"warning: {odd}" in told.err  # a block of 7 mL is no brain
    assert "unlike the brains" in page
