"""The page on scale: what is calculated from measurements, and what is left out."""

import sys

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.scale_runs import rate, rate_together, timed
from glioslice.errors import GliosliceError

COST = {
    "machine": "x", "cores": 2, "baud": 115200, "segment_cpu_s": 3.0, "segment_peak_mb": 800,
    "host_cpu_s": 8.0, "board_cpu_s": 1.0, "read_mb": 20.0, "segment_written_mb": 0.5,
    "stream_written_mb": 0.6, "bytes_up": 343000, "bytes_down": 9000, "link_s": 30.0, "slices": 127,
}  # fmt: skip


def rows(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {row[0]: row[1:] for row in cells}


def test_times_follow_from_the_cost_of_a_case() -> None:
    found = rows(scale.plan_table(COST))
    assert found["one board, 115,200 baud"] == ["5.0 minutes", "8.3 hours", "35 days", "link"]
    # Ten links take 3 s a case, but the two cores need 4 s for what the host does.
    assert found["ten boards, 115,200 baud, one host"][0] == "40 seconds"
    assert found["ten boards, 115,200 baud, one host"][3] == "the host's processor"
    cheap = rows(scale.plan_table({**COST, "host_cpu_s": 2.0}))
    assert cheap["ten boards, 115,200 baud, one host"][3] == "link"
    assert found["a workstation like this one, 2 cores"][1] == "25 minutes"
    assert found["a cluster of 256 such cores"][::2] == ["3.0 seconds", "20 minutes"]


def test_storage_and_the_rate_of_the_disk() -> None:
    found = rows(scale.storage_table(COST))
    assert found["100,000 cases"] == ["2.0 TB", "50.0 GB"]
    assert found["256 cores, per second"][0] == "1.7 GB"


def test_what_was_not_measured_is_called_so() -> None:
    nothing = dict.fromkeys(("speed", "boards", "archive"))
    parts = scale.page_parts({"cost": COST, **nothing})
    assert "Not measured yet" in parts["boards"] and "--speed" in parts["speed"]
    with pytest.raises(GliosliceError, match="measure with --cost"):
        scale.page_parts({"cost": None, **nothing})


def test_what_was_measured_is_on_the_page() -> None:
    counts = {"complete": 998, "lost": 2, "different": 3, "rows_different": 4}
    archive = {
        "cases": 1000, "parts": {"kills": 4, **counts},
        "dask": {"workers": 3, "double": 5, **counts},
    }  # fmt: skip
    text = scale.archive_text(archive)
    assert "1,000 small cases in parts, 4 processes killed" in text
    assert text.count("998 complete, 2 lost, 3 masks and 4 rows") == 2 and "5 reported" in text
    rates = {"slices": 100, "slices_per_second": 4.0, "cpu": 0.2}
    line = {"baud": 115200, "boards": 10, "one": rates, "many": rates, "factor": 9.4}
    small = {
        "cases": 400, "workers": 2, "one_per_s": 8.0, "parts_per_s": 15.4, "parts_factor": 1.93,
        "dask_per_s": 15.0, "dask_factor": 1.88,
    }  # fmt: skip
    text = scale.speed_text({"load_before": 0.1, "boards": line, "archives": {"small": small}})
    assert "115,200 baud" in text and "a factor of 9.4" in text
    assert "`--part` 15.40, a factor of 1.93" in text and "15.00, a factor of 1.88" in text


def test_the_rate_of_two_processes_is_that_of_the_time_when_both_worked() -> None:
    one = [10.0, 11.0, 12.0, 13.0]
    assert rate(one) == 1.0
    assert rate([0.0, 0.1, 1.0, 1.1, 2.0, 2.1], workers=2) == pytest.approx(2.0)
    # Until 13 each does a case a second; then the other goes on alone, twice as fast.
    assert rate_together([one, [11.0, 12.0, 13.0, 13.5, 14.0]]) == 2.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.2, "1.2 seconds"), (89, "89 seconds"), (90, "1.5 minutes"), (7200, "2.0 hours"),
     (9e5, "10 days")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert scale.duration(seconds) == text


def test_peak_memory_is_that_of_the_command_alone() -> None:
    held = np.ones(25_000_000)  # 200 MB of this process, which Linux would count
    _, _, peak = timed([sys.executable, "-c", "b = bytearray(50_000_000)"])
    del held
    assert 50 < peak < 150


def test_a_command_that_fails_is_not_timed() -> None:
    with pytest.raises(GliosliceError, match="exit code 3: no disk"):
        timed([sys.executable, "-c", "import sys; print('no disk', file=sys.stderr); sys.exit(3)"])
