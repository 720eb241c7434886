"""The HTML report, the table of slices, and the label scheme of the mask."""

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from firmware_host.mask_files import read_mask
from firmware_host.report import NOTICE, find_card
from glioslice import __version__, files
from glioslice.files import sha256, write_bytes
from glioslice.model_card import find_model
from tests.conftest import Write
from tests.firmware_host.conftest import Host
from tests.firmware_host.scripted import SHA256, serve

Listing = Callable[[], list[str]]


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
    host: Host, write_case: Write, tmp_path: Path, listing: Listing
) -> None:
    out = tmp_path / "out"
    names = ("r.json", "r.html", "slices.csv")
    options = [option for name in names for option in ("--report", out / name)]
    case = write_case("A & <b>")
    assert host("serve", serve, "--input", case, "--output", out / "m.nii.gz", *options).code == 0
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
    assert f"glioslice {__version__}, {report['date'][:10]} {report['date'][11:16]}" in page
    for region in ("WT", "TC", "ET"):
        cells = f"<td>{report['volumes_ml'][region]:.1f}</td>\\s*<td>"
        cells += f"{report['diameters_mm'][region]:.1f}</td><td>{report['dice'][region]:.3f}</td>"
        assert re.search(cells, page), region
    assert f"{report['device_ms']['p50']:.2f} ms" in page
    assert SHA256 in page
    unknown = next(line for line in report["warnings"] if "not one of those shipped" in line)
    assert unknown in page
    assert report["labels"] == "brats2018"
    with (out / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["slice"] for row in rows] == [str(number) for number in range(4, 18)]
    for region in ("WT", "TC", "ET"):
        total = sum(float(row[f"{region}_ml"]) for row in rows)
        assert total == pytest.approx(report["volumes_ml"][region], abs=1e-6)
        most = max(float(row[f"{region}_mm"]) for row in rows)
        assert most == pytest.approx(report["diameters_mm"][region])


def test_what_an_early_end_leaves(host: Host, write_case: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--report", out / "r.html", "--report", out / "s.csv"]
    ended = host("fail", serve, "--input", write_case(), "--output", out / "m.nii.gz", *options)
    assert ended.code == 2
    page = (out / "r.html").read_text()
    assert "ENDED EARLY" in page
    assert "12 of 14 slices have a mask" in page
    assert "failed on slices 6, 13" in page
    assert (out / "s.csv").read_text().count(",failed,") == 2


@pytest.mark.slow
@pytest.mark.parametrize("form", ["brats2018", "brats2023", "msd", "regions"])
def test_the_mask_in_any_scheme(
    form: str,
    host: Host,
    write_case: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = write_case()
    files = {name: tmp_path / f"{name}.nii.gz" for name in ("usual", "chosen")}
    for name, options in (("usual", ()), ("chosen", ("--labels", form))):
        given = ("--input", case, "--output", files[name], *options)
        assert host("serve", serve, *given).code == 0
    assert f"({form} labels)" in capsys.readouterr().out
    usual, _, scheme = read_mask(files["usual"], "brats2018")
    np.testing.assert_array_equal(read_mask(files["chosen"], form)[0], usual)
    assert scheme == "brats2018"
    dimensions = nib.Nifti1Image.from_filename(files["chosen"]).shape
    assert dimensions == ((28, 36, 20, 3) if form == "regions" else (28, 36, 20))


def test_the_partial_mask_is_in_that_scheme_too(
    host: Host, write_case: Write, tmp_path: Path
) -> None:
    options = ("--input", write_case(), "--output", tmp_path / "m.nii.gz", "--labels", "msd")
    assert host("short", serve, *options).code == 2
    values = np.unique(
        np.asarray(nib.Nifti1Image.from_filename(tmp_path / "m.partial.nii.gz").dataobj)
    )
    assert set(values.tolist()) == {0, 1, 3}


def test_the_card_of_a_shipped_model() -> None:
    card = find_card(sha256(find_model()))
    assert card is not None and card.name == "compact"
    assert find_card(SHA256) is None


def test_a_full_disk_leaves_no_half_report(
    host: Host, write_case: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], listing: Listing,
) -> None:  # fmt: skip
    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".html":
            raise OSError(28, "No space left on device", str(path))
        write_bytes(path, content)

    monkeypatch.setattr(files, "write_bytes", full)
    out = tmp_path / "out"
    options = ("--input", write_case(), "--output", out / "m.nii.gz", "--report", out / "r.html")
    assert host("serve", serve, *options).code == 2
    assert "r.html: No space left on device" in capsys.readouterr().err
    assert listing() == ["m.partial.nii.gz", "m.png"]


@pytest.mark.slow
@pytest.mark.browser
def test_it_prints_on_one_page_or_says_two(host: Host, write_case: Write, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    assert chromium and shutil.which("pdftotext"), "apt-get install chromium poppler-utils"
    page = tmp_path / "r.html"
    options = ("--output", tmp_path / "m.nii.gz", "--report", page)
    assert host("serve", serve, "--input", write_case(), *options).code == 0
    text = page.read_text()
    # As long as reports of shipped models are, with their credits; and one that is longer.
    credits = '<p class="card">' + 60 * "B. Menze et al., Benchmark, " + "</p>"
    counted = []
    for name, more in (("one", credits), ("more", 40 * credits)):
        (tmp_path / f"{name}.html").write_text(text.replace("</body>", more + "</body>"))
        pdf = tmp_path / f"{name}.pdf"
        subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--print-to-pdf={pdf}",
             str(tmp_path / f"{name}.html")], capture_output=True, check=True, timeout=120,
        )  # fmt: skip
        printed = subprocess.run(["pdftotext", pdf, "-"], capture_output=True, text=True).stdout
        counted.append(re.findall(r"page (\d) of (\d)", printed))
    assert counted[0] == [("1", "1")]
    pages = len(counted[1])
    assert pages > 1
    assert counted[1] == [(str(number), str(pages)) for number in range(1, pages + 1)]
