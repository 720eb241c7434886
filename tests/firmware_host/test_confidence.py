"""The confidence of masks: which slices are marked as unsure, and where that is reported."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.confidence_tables import read_slice_rows, threshold
from firmware_host.confidence import (
    MOST_MARKED,
    UNSURE_BELOW,
    summarize_confidence,
    unsure_summary,
    worst_slices,
)
from firmware_host.mask_volume import MaskVolume
from firmware_host.volumetry import Volumetry, slices_csv
from glioslice.preprocessing import Crop
from glioslice.wire.codecs import encode_mask
from glioslice.wire.messages import UNKNOWN, Empty, Mask, Mode
from tests.conftest import Write
from tests.firmware_host.conftest import Host
from tests.firmware_host.scripted import serve


def masks_with(quality: Iterable[int]) -> MaskVolume:
    """Masks from Z 3 on with 1, 2, 3... pixels, and an empty one at the end."""
    values = list(quality)
    masks = MaskVolume(
        Mode.SERVE, "webp", Crop((20, 20, 30), (0, 0), (3, 3 + len(values)), (16, 16))
    )
    for index, byte in enumerate(values[:-1]):
        mask = np.zeros((16, 16), np.uint8)
        mask[2, 2 : 3 + index] = 2
        masks.add(Mask(index, 1, 1000, encode_mask(1, mask), byte))
    masks.add(Empty(len(values) - 1, (900,), (values[-1],)))
    return masks


def summarize(masks: MaskVolume) -> dict[str, object]:
    return summarize_confidence(masks, Volumetry().update(masks))


def test_doubtful_slices_are_marked_the_worst_first() -> None:
    found = summarize(
        masks_with((UNSURE_BELOW, UNSURE_BELOW - 1, 254, 0, UNKNOWN, UNSURE_BELOW - 1))
    )
    assert found["unsure"] == [7, 9, 5]  # 1-based; 9 is empty, beside a mask of five pixels
    assert found["below"] == UNSURE_BELOW


def test_five_slices_at_most_within_or_beside_tumour() -> None:
    doubt = dict.fromkeys(range(40), 10)
    areas = {index: 100 + index for index in range(10, 20)}
    assert worst_slices(doubt, areas) == [18, 19, 20, 17, 16]  # 20 is beside 19
    far = {index: 9 * (index in (3, 8)) for index in range(40)}
    assert set(worst_slices(doubt, far)) == {2, 3, 4, 7, 8}
    assert worst_slices(doubt, {}) == []
    assert worst_slices(dict.fromkeys(range(40), 200), areas) == []


def test_doubt_counts_more_than_size_and_size_more_than_a_little_doubt() -> None:
    assert worst_slices({1: 100, 5: 100, 9: 10}, {1: 50, 5: 400, 9: 60}) == [5, 9, 1]


def test_the_mean_is_weighted_by_pixels_and_skips_unknown_bytes() -> None:
    assert summarize(masks_with((100, UNKNOWN, 200, 7)))["mean"] == (1 * 100 + 3 * 200) / 4
    assert summarize(masks_with((UNKNOWN, UNKNOWN, UNKNOWN))) == {
        "mean": None, "below": UNSURE_BELOW, "unsure": [],
    }  # fmt: skip


def test_missing_masks_are_not_marked() -> None:
    masks = MaskVolume(Mode.SERVE, "webp", Crop((20, 20, 30), (0, 0), (3, 9), (16, 16)))
    assert summarize(masks) == {"mean": None, "below": UNSURE_BELOW, "unsure": []}


def test_a_column_of_the_table() -> None:
    masks = masks_with((10, UNKNOWN, 200))
    rows = list(csv.DictReader(slices_csv(masks, Volumetry().update(masks)).splitlines()))
    assert [row["quality"] for row in rows] == ["10", "", "200"]


def test_the_summary_line() -> None:
    assert unsure_summary({"unsure": []}) is None
    assert unsure_summary({"unsure": [9]}) == "The network is least sure of slice 9."
    line = "The network is least sure of the slices 5, 3, 9, the worst first."
    assert unsure_summary({"unsure": [5, 3, 9]}) == line


def test_the_threshold_is_the_one_that_was_measured() -> None:
    assert threshold(read_slice_rows()) == UNSURE_BELOW


def test_reports_and_terminal_name_the_slices(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = [tmp_path / name for name in ("r.json", "r.html")]
    options = [option for path in reports for option in ("--report", path)]
    out = ("--input", write_case(), "--output", tmp_path / "m.nii.gz", *options)
    assert host("serve", serve, *out).code == 0
    printed = capsys.readouterr()
    report = json.loads(reports[0].read_text())
    page = reports[1].read_text()
    marked = report["quality"]["unsure"]
    assert 1 <= len(marked) <= MOST_MARKED
    assert set(marked) <= {4 + index for index in range(14) if 100 + 10 * index < UNSURE_BELOW}
    [line] = [warning for warning in report["warnings"] if "least sure" in warning]
    assert f"the slices {', '.join(map(str, marked))}, the worst first" in line
    assert f"warning: {line}" in printed.out
    assert line in page
    for rank, number in enumerate(marked, 1):
        assert f">{rank}<title>slice {number}</title>" in page
    [odd] = [warning for warning in report["warnings"] if "unlike the brains" in warning]
    assert f"warning: {odd}" in printed.err  # a block of 7 mL is not a brain
    assert "unlike the brains" in page
