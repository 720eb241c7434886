"""Volumes and diameters, slice by slice, and the use of the link."""

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.confidence_tables import read_slice_rows, threshold
from firmware_host.mask_volume import MaskVolume
from firmware_host.progress import LinkUtilisation, link_baud
from firmware_host.volumetry import (
    MOST_MARKED,
    UNSURE_BELOW,
    Volumetry,
    diameter_mm,
    slices_csv,
    summarize_confidence,
    unsure_summary,
    worst_slices,
)
from glioslice.metrics import volumes_ml
from glioslice.preprocessing import Crop
from glioslice.wire.codecs import encode_mask
from glioslice.wire.link import Counts
from glioslice.wire.messages import UNKNOWN, Empty, Error, ErrorCode, Mask, Mode
from tests.conftest import Write
from tests.firmware_host.conftest import Host
from tests.firmware_host.scripted import serve


def disc(radius: float) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    x, y = np.mgrid[-40:41, -40:41]
    return np.asarray(x**2 + y**2 <= radius**2)


@pytest.mark.parametrize("radius", [3, 10, 25, 33.3])
def test_the_diameter_of_a_disc(radius: float) -> None:
    assert diameter_mm(disc(radius)) == pytest.approx(2 * radius + 1, abs=1.0)


def test_the_diameter_of_corners() -> None:
    region = np.zeros((30, 40), np.bool_)
    assert diameter_mm(region) == 0.0
    region[4, 7] = True
    assert diameter_mm(region) == 1.0
    region[4 + 12, 7 + 16] = True  # two parts, 20 apart
    assert diameter_mm(region) == 1.0
    region[5, 8] = True  # touches at a corner
    assert diameter_mm(region) == pytest.approx(1 + math.sqrt(2))


def parts_of(points: set[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """Return the pixels part by part by following neighbours."""
    found, left = [], set(points)
    while left:
        part, edge = set(), {left.pop()}
        while edge:
            part |= edge
            edge = {
                p for p in left if any(max(abs(p[0] - q[0]), abs(p[1] - q[1])) < 2 for q in edge)
            }
            left -= edge
        found.append(part)
    return found


@given(arrays(np.bool_, (9, 12), elements=st.booleans()))
def test_the_diameter_is_that_of_the_farthest_pair_in_a_part(
    region: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
) -> None:
    parts = parts_of({(int(x), int(y)) for x, y in np.argwhere(region)})
    farthest = max((math.dist(a, b) + 1 for part in parts for a in part for b in part), default=0.0)
    assert diameter_mm(region) == pytest.approx(farthest)


def received() -> MaskVolume:
    """A run of four slices: two masks, one failure, one missing; its window reaches outside."""
    masks = MaskVolume(Mode.SERVE, "webp", Crop((20, 20, 9), (-4, 2), (3, 7), (16, 16)))
    mask = np.zeros((16, 16), np.uint8)
    mask[2:10, 5:9] = 2  # its first two columns of X lie outside the volume
    mask[6:8, 6:8] = 3
    for index in (2, 0):
        masks.add(Mask(index, 1, 1500 + index, encode_mask(1, mask)))
    masks.add_failure(Error(ErrorCode.ENGINE, 1, "the network failed"))
    return masks


def test_the_totals_are_those_of_the_volume() -> None:
    masks = received()
    volumetry = Volumetry().update(masks)
    assert volumetry.volumes_ml() == volumes_ml(masks.labels())
    assert volumetry.volumes_ml()["WT"] == 2 * 6 * 4 / 1000
    assert volumetry.diameters_mm() == {"WT": round(math.hypot(5, 3) + 1, 1), "TC": 2.4, "ET": 2.4}
    masks.reset()
    assert volumetry.update(masks).volumes_ml() == {"WT": 0.0, "TC": 0.0, "ET": 0.0}


def test_a_mask_received_again_replaces_the_first() -> None:
    masks, volumetry = received(), Volumetry()
    volumetry.update(masks)
    masks.reset()
    masks.add(Mask(0, 1, 1500, encode_mask(1, np.zeros((16, 16), np.uint8))))
    assert volumetry.update(masks).volumes_ml()["WT"] == 0.0


def test_the_csv_of_slices() -> None:
    masks = received()
    lines = slices_csv(masks, Volumetry().update(masks)).splitlines()
    assert lines[0] == "slice,state,WT_ml,TC_ml,ET_ml,WT_mm,TC_mm,ET_mm,device_ms,quality"
    assert lines[1] == "4,mask,0.024,0.004,0.004,6.8,2.4,2.4,1.500,"
    assert lines[2] == "5,failed,,,,,,,,"
    assert lines[4] == "7,missing,,,,,,,,"
    assert {line.count(",") for line in lines} == {9}


def test_link_utilisation() -> None:
    now, counts = 0.0, Counts()
    use = LinkUtilisation(lambda: counts, lambda: now)
    assert use.measure(115200)["use"] == 0.0
    for _ in range(8):
        now += 0.5
        counts = Counts(bytes_sent=counts.bytes_sent + 2880, bytes_received=0)
        seen = use.measure(115200)
    assert seen == {"baud": 115200, "up": 5760, "down": 0, "use": 0.5}
    now += 2.0
    assert use.measure(None)["use"] is None
    now += 2.0
    assert use.measure(115200)["up"] == 0


def test_the_baud_rate_of_a_link() -> None:
    assert link_baud("/dev/ttyUSB0", None, 921600) == 921600
    assert link_baud("/dev/ttyUSB0", 115200, None) == 115200
    assert link_baud("socket://pi:4000", None, None) is None
    assert link_baud("sim://?baud=57600&loss=0.1", None, 921600) == 57600
    assert link_baud("sim://", None, 921600) == 921600


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
    assert f"warning: Case_1: {odd}" in printed.err  # a block of 7 mL is not a brain
    assert "unlike the brains" in page
