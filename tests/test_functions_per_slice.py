"""How many functions of ours run for each slice, from the host to the board and back.

pytest tests/test_functions_per_slice.py -s lists them. A layer that only passes a call on shows.
"""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from device.board import make_board
from device.engine import Engine
from firmware_host import run, stream
from glioslice.cases import MODALITIES
from glioslice.model_card import shipped_folder
from glioslice.phantom.head import make_phantom
from tests.conftest import ROOT, save
from tests.device.conftest import MODEL, BoardThread

MOST = 120
"""103 are usual, and 116 with mirroring in a whole head; a new layer on the way adds several."""

pytestmark = pytest.mark.slow


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Count the calls of each function of ours, in this thread and in those that it starts."""
    calls: Counter[str] = Counter()
    folders = tuple(f"{ROOT / name}/" for name in ("glioslice", "device", "firmware_host"))

    def count(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(folders) and code.co_name[0] != "<":
            calls[f"{code.co_filename[len(str(ROOT)) + 1 :]} {code.co_qualname}"] += 1

    before = sys.getprofile()
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def test_few_functions_run_for_each_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_phantom(0, shape=(64, 72, 48)).images[..., 12:36]
    for modality, image in zip(MODALITIES, images, strict=True):
        save(tmp_path / "P" / f"P_{modality}.nii.gz", image)
    file = shipped_folder("nano") / MODEL
    engine = Engine(file)
    with counted_calls() as calls:
        board = BoardThread(make_board(engine, file))
        monkeypatch.setattr(run, "open_port", lambda *_, **__: board.port)
        options = ("--port", "memory", "--output", str(tmp_path / "mask.nii.gz"), "--quiet")
        stream.main([str(tmp_path / "P"), *options])
    board.stop.request()
    assert board.ended()
    slices = calls["firmware_host/session.py SliceSender._encode"]
    for_each = sorted(name for name, number in calls.items() if number >= slices)
    print(f"\n{slices} slices, {len(for_each)} functions for each:", *for_each, sep="\n")
    assert slices > 16
    assert "device/engine.py Engine.invoke" in for_each
    assert "firmware_host/volumetry.py Volumetry.add" in for_each
    assert len(for_each) <= MOST
