"""docs/confidence.md shows the committed tables, and the limits in the code are those it names."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import confidence, confidence_tables, unusual_inputs
from benchmarks.confidence_tables import (
    BYTE,
    DEFINITIONS,
    CaseConfidence,
    SliceConfidence,
    bytes_by_definition,
    case_byte,
    correlate,
    read_case_rows,
    read_slice_rows,
    threshold,
)
from benchmarks.folds import patients
from benchmarks.pages import read_csv
from device.confidence import MAX_DISTANCE, mask_confidence
from glioslice import sanity_checks
from glioslice.cases import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.phantom.head import SEEDS
from tests.conftest import Write

NAMES = (BYTE, *DEFINITIONS)


def row(byte: int, dice: float | None, pixels: int = 10, truth: int = 10) -> SliceConfidence:
    return SliceConfidence("a", 3, pixels, truth, (dice, None, None), dict.fromkeys(NAMES, byte))


def test_the_page_is_made_of_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, picture = tmp_path / confidence.PAGE.name, tmp_path / confidence.PICTURE.name
    shutil.copy(confidence.PAGE, page)
    monkeypatch.setattr(confidence, "PAGE", page)
    monkeypatch.setattr(confidence, "PICTURE", picture)
    confidence.write_page()
    assert page.read_bytes() == unusual_inputs.PAGE.read_bytes()
    assert picture.read_bytes() == (unusual_inputs.PAGE.parent / picture.name).read_bytes()
    assert unusual_inputs.make_table() in unusual_inputs.PAGE.read_text(encoding="utf-8")


def test_the_tables_hold_every_patient() -> None:
    names = {patient.case for patient in patients()}
    assert {one.case for one in read_slice_rows()} == names
    cases = read_case_rows()
    assert {(one.case, one.missing) for one in cases} == {
        (name, missing) for name in names for missing in ("", *MODALITIES)
    }
    seen = [one["case"] for one in read_csv(unusual_inputs.SEEN)]
    phantoms = {f"phantom-{seed}" for seed in SEEDS}
    assert sorted(seen) == sorted(phantoms | names)


def test_the_byte_of_a_case_is_that_of_its_slices() -> None:
    slices = read_slice_rows()
    for case in (one for one in read_case_rows() if not one.missing):
        masks = [(one.pixels, one.bytes[BYTE]) for one in slices if one.case == case.case]
        pixels, byte = case_byte(masks)
        assert (pixels, round(byte, 1)) == (case.pixels, case.byte)


def test_tables_are_read_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confidence_tables, "FOLDER", tmp_path)
    slices, cases = [row(7, 0.125), row(9, None, 0, 0)], [CaseConfidence("a", "t1", 3, 1.5)]
    confidence_tables.write_measurements(slices, cases)
    assert read_slice_rows() == slices
    assert read_case_rows() == cases


def test_the_threshold_errs_least() -> None:
    poor = [row(byte, 0.1) for byte in (10, 20, 28, 30, 90)]
    good = [row(byte, 0.9) for byte in (25, 60, 70, 80)]
    empty = [row(200, 0.0, pixels=0)] * 9  # does not count
    assert threshold(poor + good + empty) == 31  # 90 passes, 25 is marked
    assert threshold(good) == 0


def test_a_definition_that_ranks_as_dice_does() -> None:
    names = [patient.case for patient in patients()]
    slices = [
        SliceConfidence(name, 0, 10, 10, (n / 50, n / 50, None), dict.fromkeys(NAMES, n))
        for n, name in enumerate(names)
    ]
    found = correlate(slices, BYTE)
    assert found.whole == found.mean == pytest.approx(1.0)


def test_definitions_rate_a_steep_border_above_a_faint_one() -> None:
    x, y = np.mgrid[:40, :40]
    climb = 1 - np.hypot(x - 20, y - 20) / 12
    found = []
    for height in (1.0, 3.0, 12.0):
        region = np.maximum(height * climb, -height)
        logits = np.stack([region, region / 2, np.full_like(region, -9)], -1).astype(np.float32)
        found.append(bytes_by_definition(logits, mask_confidence(logits, 0.0, 0)))
    assert list(found[0]) == list(NAMES)
    for name in NAMES:
        values = [one[name] for one in found]
        assert values == sorted(set(values)) and values[0] >= 0 and values[-1] <= MAX_DISTANCE, name
    nothing = bytes_by_definition(np.full((9, 9, 3), -1, np.float32), 64)
    assert set(nothing.values()) == {64}


def test_limits_leave_room_on_both_sides_of_what_was_seen() -> None:
    seen = read_csv(unusual_inputs.SEEN)

    def of(*names: str) -> list[float]:
        return [float(one[name]) for name in names for one in seen]

    ranges = [(of("ml"), sanity_checks.VOLUME_ML), (of("fill"), sanity_checks.FILL)]
    ranges += [(of(axis), sides) for axis, sides in zip("xyz", sanity_checks.SIDES, strict=True)]
    for values, (low, high) in ranges:
        assert low < 0.9 * min(values) and 1.1 * max(values) < high
    assert 10 * max(of("enclosed")) < sanity_checks.MAX_ENCLOSED
    assert max(of(*(f"same_{name}" for name in MODALITIES))) + 0.1 < sanity_checks.MAX_CONSTANT
    pairs = [name for name in seen[0] if name.startswith("alike_")]
    assert max(of(*pairs)) + 0.05 < sanity_checks.MAX_CORRELATION
    for near, usual, other in (("t1", "t1ce", "t2"), ("t1ce", "t1", "t2"), ("t1ce", "flair", "t2")):
        kept, turned = (pair(seen, near, name) for name in (usual, other))
        assert max(np.subtract(turned, kept)) < sanity_checks.ORDER_TOLERANCE / 2
    assert max(np.subtract(of("bright_t1"), of("bright_t1ce"))) < sanity_checks.ORDER_TOLERANCE / 2
    [clean] = [one for one in read_csv(unusual_inputs.FAULTS) if one["fault"] == "nothing"]
    assert {clean[group] for group in unusual_inputs.GROUPS} == {"0"}


def pair(seen: list[dict[str, str]], one: str, other: str) -> list[float]:
    names = f"alike_{one}_{other}", f"alike_{other}_{one}"
    return [float(case[next(name for name in names if name in case)]) for case in seen]


def test_a_patient_of_the_folds_must_be_there(write_case: Write, tmp_path: Path) -> None:
    write_case("Somebody")
    with pytest.raises(GliosliceError, match="lacks"):
        confidence.measure_confidence(tmp_path)
