"""The host applies the rules of a model's card to a whole volume, and says what they changed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from firmware_host import run as run_module
from firmware_host.run import find_rules
from glioslice.cases import read_case
from glioslice.files import read_json, sha256, write_json
from glioslice.model_card import CARD, Card, read_card, shipped_folder
from glioslice.postprocessing import NO_RULES, STANDARD_RULES, PostprocessingRules, postprocess
from tests.conftest import LPS, Write, save
from tests.firmware_host.conftest import Host
from tests.firmware_host.scripted import HELLO, SHA256, ScriptedBoard, serve
from tests.firmware_host.test_stream import apply_rule

RULES = PostprocessingRules(smallest_part=0.5, smallest_enhancing=10_000)


@pytest.fixture
def with_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has a card of the scripted board's model."""
    card = replace(read_card(shipped_folder("nano")), rules=RULES)

    def find_card(digest: str) -> Card | None:
        return card if digest == SHA256 else None

    monkeypatch.setattr(run_module, "find_card", find_card)


@pytest.fixture
def case(write_case: Write, volumes: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> Path:
    """A case of which the scripted board finds a tumour with little ET, and a small part."""
    folder = write_case()
    images = np.where(volumes[0] != 0, np.float32(100), np.float32(0))
    x, y, z = (int(filled[0]) for filled in np.nonzero(images[0]))
    flair, t1 = images[0, x:, y:, z:], images[1, x:, y:, z:]
    t1[2:10, 2:10, 2:8] = flair[4:7, 4:7, 4:7] = t1[14:17, 18:21, 9:11] = 1000
    for name, image in zip(("flair", "t1"), images, strict=False):
        save(folder / f"Case_1_{name}.nii.gz", image, LPS)
    return folder


def voxels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj)


@pytest.mark.usefixtures("with_rules")
def test_rules_change_the_mask_and_everything_that_is_made_of_it(
    host: Host, case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    names = [word for name in ("r.json", "r.html", "r.csv") for word in ("--report", out / name)]
    recorded = ("--record-masks", tmp_path / "a.rec")
    ended = host("serve", serve, case, "--output", out / "m.nii.gz", *names, *recorded)
    printed = capsys.readouterr()
    assert ended.code == 0, printed.err
    raw = apply_rule(read_case(case).images)
    expected = postprocess(raw, RULES)
    assert (expected.removed_parts, expected.removed_voxels, expected.core_voxels) == (1, 18, 27)
    to_2018 = np.array([0, 1, 2, 4], np.uint8)
    np.testing.assert_array_equal(voxels(out / "m.nii.gz"), to_2018[expected.labels])
    report = json.loads((out / "r.json").read_text())
    assert report["postprocessing"] == {
        "summary": expected.summary(),
        "removed_ml": expected.removed_voxels / 1000,
        "core_ml": expected.core_voxels / 1000,
        "rules": {"smallest_part": 0.5, "smallest_enhancing": 10_000},
    }
    assert f"post-processing: {expected.summary()}" in printed.out
    assert expected.summary() in (out / "r.html").read_text()
    assert report["volumes_ml"]["WT"] == np.count_nonzero(expected.labels) / 1000
    assert report["volumes_ml"]["ET"] == 0.0
    columns = [line.split(",") for line in (out / "r.csv").read_text().splitlines()]
    millilitres = sum(float(row[2] or 0) for row in columns[1:])
    assert millilitres == pytest.approx(report["volumes_ml"]["WT"], abs=1e-6)

    # What was recorded is raw: a replay applies the rules again, or leaves the masks as they are.
    replayed = ("--replay", tmp_path / "a.rec", "--at-once")
    for options, wanted in (((), expected.labels), (("--raw",), raw)):
        mask = tmp_path / f"{len(options)}.nii.gz"
        code = host_replay(*replayed, case, "--output", mask, *options)
        assert code == 0
        np.testing.assert_array_equal(voxels(mask), to_2018[wanted])


def host_replay(*options: object) -> int:
    from firmware_host import stream

    try:
        stream.main([*map(str, options), "--allow-model", SHA256])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.usefixtures("with_rules")
def test_raw_leaves_the_masks_as_they_came(host: Host, case: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.nii.gz"
    report = ("--report", tmp_path / "r.json")
    assert host("serve", serve, case, "--output", out, "--raw", *report).code == 0
    raw = apply_rule(read_case(case).images)
    np.testing.assert_array_equal(voxels(out), np.array([0, 1, 2, 4])[raw])
    assert json.loads((tmp_path / "r.json").read_text())["postprocessing"] is None


@pytest.mark.usefixtures("with_rules")
@pytest.mark.parametrize("behaviour", ["fail", "stop"])
def test_a_volume_that_lacks_masks_stays_raw(
    behaviour: str, host: Host, write_case: Write, tmp_path: Path
) -> None:
    case, out = write_case(), tmp_path / "m.nii.gz"
    report = ("--report", tmp_path / "r.json")
    assert host(behaviour, serve, case, "--output", out, *report).code == 2
    kept = voxels(tmp_path / "m.partial.nii.gz")
    assert (kept == 4).any()  # an enhancing tumour that the rules would have relabelled
    assert json.loads((tmp_path / "r.json").read_text())["postprocessing"] is None


def test_the_rules_are_those_of_the_boards_model(tmp_path: Path) -> None:
    def given(**options: Any) -> Any:
        return type("Given", (), {"raw": False, "model": None, **options})

    file = tmp_path / "nano-int8.tflite"
    file.write_bytes((shipped_folder("nano") / file.name).read_bytes())
    card = read_json(shipped_folder("nano") / CARD)
    card["output"]["postprocessing"] = {"smallest_part": 0.1, "smallest_enhancing": 100}
    write_json(tmp_path / CARD, card)
    hello = replace(HELLO, sha256=sha256(file))
    assert find_rules(hello, given(model=file)) == STANDARD_RULES
    assert find_rules(hello, given(model=file, raw=True)) == NO_RULES
    assert find_rules(hello, given()) == read_card(shipped_folder("nano")).rules
    assert find_rules(HELLO, given(model=file)) == NO_RULES  # the board runs another one


def test_missing_modalities_are_not_sent_and_reported(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, sizes = write_case(), {}
    for missing in ("", "t2,t1ce"):
        options = ("--missing", missing) if missing else ()
        out = tmp_path / f"{len(missing)}"
        reports = ("--report", out / "r.json", "--report", out / "r.html")
        codec = ("--images", "raw")
        ended = host("serve", serve, case, "--output", out / "m.nii.gz", *codec, *options, *reports)
        assert ended.code == 0, capsys.readouterr().err
        start = ended.board.received[1]
        assert getattr(start, "absent", None) == (0b1100 if missing else 0)  # t1, flair, t2, t1ce
        sizes[missing] = len(getattr(ended.board.received[2], "payload", b""))
    assert sizes["t2,t1ce"] * 2 == sizes[""]
    np.testing.assert_array_equal(voxels(out / "m.nii.gz"), voxels(tmp_path / "0" / "m.nii.gz"))
    report = json.loads((out / "r.json").read_text())
    assert report["missing"] == ["t1ce", "t2"]
    assert report["warnings"][0].startswith("T1ce is missing")
    assert "T1ce is missing" in (out / "r.html").read_text()
    assert "warning: Case_1: T1ce is missing" in capsys.readouterr().err


def test_a_played_case_may_lack_modalities(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.firmware_host.scripted import describe_volume

    case = write_case()
    labels = read_case(case).labels
    assert labels is not None

    def play(board: ScriptedBoard) -> None:
        board.play(describe_volume(case), labels, absent=0b0010)

    report = tmp_path / "r.json"
    assert host("serve", play, "--output", tmp_path / "m.nii.gz", "--report", report).code == 0
    content = json.loads(report.read_text())
    assert content["missing"] == ["flair"]
    assert content["warnings"][0].startswith("FLAIR is missing")
    assert "FLAIR is missing" in capsys.readouterr().err
