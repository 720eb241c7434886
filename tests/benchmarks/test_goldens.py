"""The committed goldens are what the shipped files make of the golden slices here."""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.goldens import EVERY, GOLDENS, PHANTOM, found, golden_slices, work
from device.engine import Engine
from device.segment import slices_of
from glioslice.card import SHIPPED, shipped
from glioslice.cases import phantom_case
from glioslice.files import read_json, sha256, write_json


@pytest.mark.parametrize("size", SHIPPED)
def test_shipped_files_find_what_is_committed(size: str) -> None:
    committed = read_json(shipped(size) / GOLDENS)
    file = shipped(size) / committed["file"]
    engine = Engine(file)
    assert sha256(file) == committed["sha256"]
    assert found(engine) == committed["labels"][engine.runtime]


def test_the_golden_slices_are_the_phantoms() -> None:
    """Another processor's exponential may move a voxel by a step."""
    engine = Engine(shipped("nano") / "nano-int8.tflite")
    golden = golden_slices(engine)
    slices, _ = slices_of(phantom_case(PHANTOM).images, engine.card)
    made = np.stack([engine.prepare(one) for one in slices[EVERY // 2 :: EVERY]])
    assert len(golden) >= 5
    assert abs(made.astype(int) - golden).max() <= 1
    assert (made != golden).mean() < 1e-3


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
