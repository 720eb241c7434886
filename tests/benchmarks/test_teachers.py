"""What a teacher could be, from what is kept and on networks whose answers are known."""

from typing import Any, cast

import numpy as np
import pytest

from benchmarks.runs import patients
from benchmarks.tables import COMPARED
from benchmarks.teachers import FILE, PAGE, TEACHERS, chances_of, page, read, text_of
from device.engine import Engine


class Fixed:
    """A network that says the same logit of every pixel."""

    def __init__(self, logit: float) -> None:
        self.logit = logit

    def prepare(self, one: Any) -> Any:
        return one

    def invoke(self, one: Any) -> Any:
        return np.full((*one.shape[:2], 3), self.logit, np.float32)


def test_what_is_kept_is_whole_and_is_written_as_it_was_read() -> None:
    rows = read()
    assert {(row.teacher, row.case) for row in rows} == {
        (teacher, p.case) for teacher in TEACHERS for p in patients() if p.fold in COMPARED
    }
    assert text_of(rows) == FILE.read_text()


def test_the_page_says_what_is_kept() -> None:
    assert page(read()) in PAGE.read_text()


def test_probabilities_are_averaged_and_not_logits() -> None:
    engines = cast(list[Engine], [Fixed(0.0), Fixed(30.0), Fixed(-30.0), Fixed(30.0)])
    chances = chances_of(np.zeros((2, 5, 4), np.float32), engines)
    assert chances.shape == (2, 5, 3)
    assert chances == pytest.approx(0.625)
