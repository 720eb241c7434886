"""The report for people, the table of slices, and the label scheme of what is written."""

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from firmware_host import outputs
from firmware_host.mask_files import read_mask
from firmware_host.report import NOTICE, card_of
from glioslice.files import sha256, write_bytes
from glioslice.model_card import default_model
from tests.conftest import Write
from tests.firmware_host.conftest import Desk
from tests.firmware_host.scripted import SHA256, ScriptedBoard

Listing = Callable[[], list[str]]


def serve(board: ScriptedBoard) -> None:
    board.serve()


class Outside(HTMLParser):
    """Gathers what a document would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data")]


def test_one_page_that_needs_no_network(
    desk: Desk, write_case: Write, tmp_path: Path, listing: Listing
) -> None:
    out = tmp_path / "out"
    names = ("r.json", "r.html", "slices.csv")
    words = [word for name in names for word in ("--report", out / name)]
    case = write_case("A & <b>")
    assert desk("serve", serve, "--input", case, "--output", out / "m.nii.gz", *words).code == 0
    assert listing() == ["m.nii.gz", "m.png", "r.html", "r.json", "slices.csv"]
    report = json.loads((out / "r.json").read_text())
    page = (out / "r.html").read_text()
    seen = Outside()
    seen.feed(page)
    assert not seen.tags & {"script", "link", "iframe", "object", "b&"}
    assert seen.loads and all(load.startswith("data:image/png;base64,") for load in seen.loads)
    assert "@import" not in page and "url(" not in page
    assert "A &amp; &lt;b&gt;" in page
    assert NOTICE in page
    for region in ("WT", "TC", "ET"):
        cells = f"<td>{report['volumes_ml'][region]:.1f}</td>\\s*<td>"
        cells += f"{report['diameters_mm'][region]:.1f}</td>"
        assert re.search(cells, page), region
    assert f"{report['device_ms']['p50']:.2f} ms" in page
    assert SHA256 in page
    unknown = "The model is not one that ships with this version: nothing is known of it."
    assert unknown in report["warnings"]
    assert unknown in page
    assert report["labels"] == "brats2018"
    with (out / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["z"] for row in rows] == [str(z) for z in range(3, 17)]
    for region in ("WT", "TC", "ET"):
        total = sum(float(row[f"{region}_ml"]) for row in rows)
        assert total == pytest.approx(report["volumes_ml"][region], abs=1e-6)
        most = max(float(row[f"{region}_mm"]) for row in rows)
        assert most == pytest.approx(report["diameters_mm"][region])


def test_what_an_early_end_leaves(desk: Desk, write_case: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--report", out / "r.html", "--report", out / "s.csv"]
    ended = desk("fail", serve, "--input", write_case(), "--output", out / "m.nii.gz", *words)
    assert ended.code == 2
    page = (out / "r.html").read_text()
    assert "ENDED EARLY" in page
    assert "12 of 14 slices have a mask" in page
    assert "failed on the slices Z 5, 12" in page
    assert (out / "s.csv").read_text().count(",failed,") == 2


@pytest.mark.parametrize("form", ["brats2018", "brats2023", "msd", "regions"])
def test_the_mask_in_any_scheme(
    form: str, desk: Desk, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = write_case()
    files = {name: tmp_path / f"{name}.nii.gz" for name in ("usual", "asked")}
    for name, words in (("usual", ()), ("asked", ("--labels", form))):
        given = ("--input", case, "--output", files[name], *words)
        assert desk("serve", serve, *given).code == 0
    assert f"({form} labels)" in capsys.readouterr().out
    usual, _, told = read_mask(files["usual"], "brats2018")
    np.testing.assert_array_equal(read_mask(files["asked"], form)[0], usual)
    assert told == "brats2018"
    dimensions = nib.Nifti1Image.from_filename(files["asked"]).shape
    assert dimensions == ((28, 36, 20, 3) if form == "regions" else (28, 36, 20))


def test_the_partial_mask_is_in_that_scheme_too(
    desk: Desk, write_case: Write, tmp_path: Path
) -> None:
    words = ("--input", write_case(), "--output", tmp_path / "m.nii.gz", "--labels", "msd")
    assert desk("short", serve, *words).code == 2
    values = np.unique(
        np.asarray(nib.Nifti1Image.from_filename(tmp_path / "m.partial.nii.gz").dataobj)
    )
    assert set(values.tolist()) == {0, 1, 3}


def test_the_card_of_a_shipped_model() -> None:
    card = card_of(sha256(default_model()))
    assert card is not None and card.name == "compact"
    assert card_of(SHA256) is None


def test_a_full_disk_leaves_no_half_report(
    desk: Desk, write_case: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], listing: Listing,
) -> None:  # fmt: skip
    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".html":
            raise OSError(28, "No space left on device", str(path))
        write_bytes(path, content)

    monkeypatch.setattr(outputs, "write_bytes", full)
    out = tmp_path / "out"
    words = ("--input", write_case(), "--output", out / "m.nii.gz", "--report", out / "r.html")
    assert desk("serve", serve, *words).code == 2
    assert "r.html: No space left on device" in capsys.readouterr().err
    assert listing() == ["m.nii.gz", "m.png"]
