"""The committed goldens are what the shipped files make of the golden slices here."""

import argparse
import shutil
from pathlib import Path

import pytest

from benchmarks.goldens import GOLDENS, found, golden_slices, work
from device.engine import Engine
from glioslice.card import SHIPPED, shipped
from glioslice.files import read_json, sha256, write_json


@pytest.mark.parametrize("size", SHIPPED)
def test_shipped_files_find_what_is_committed(size: str) -> None:
    committed = read_json(shipped(size) / GOLDENS)
    file = shipped(size) / committed["file"]
    engine = Engine(file)
    assert sha256(file) == committed["sha256"]
    assert found(engine) == committed["labels"][engine.runtime]


def test_the_golden_slices_show_a_head() -> None:
    engine = Engine(shipped("nano") / "nano-int8.tflite")
    slices = golden_slices(engine)
    assert slices.shape[1:] == (160, 192, 4)
    filled = (slices != engine.input.zero_point).any(axis=-1).mean(axis=(1, 2))
    assert len(slices) >= 5
    assert (filled > 0.1).all()


def test_goldens_of_other_runtimes_stay_with_the_same_file(tmp_path: Path) -> None:
    folder = tmp_path / "nano"
    shutil.copytree(shipped("nano"), folder)
    for digest, stays in ((None, True), ("of other weights", False)):
        old = read_json(folder / GOLDENS)
        old["labels"]["another 1.0"] = "theirs"
        old["sha256"] = digest or old["sha256"]
        write_json(folder / GOLDENS, old)
        work(argparse.Namespace(folder=folder))
        assert ("another 1.0" in read_json(folder / GOLDENS)["labels"]) == stays
