"""The page in a real browser shows what was sent, whatever happens during the run."""

import io
import json
import signal
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from firmware_host.viewer.server import Scene, to_page_voxels
from glioslice.cases import read_case
from glioslice.labels import BRATS_2018, from_scheme
from glioslice.montage import COLOURS
from glioslice.preprocessing import brain_mask, extract_slices, find_crop
from tests.conftest import Write
from tests.firmware_host.commands import list_processes
from tests.firmware_host.scripted import HELLO, SHA256
from tests.firmware_host.viewer.conftest import Command, Open, Start, Tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ENDED = "!['waiting', 'running'].includes(glioslice.numbers.state)"


def sent(case: Path, mask: Path) -> bytes:
    """Return the masks in a file as the page's voxels: those of the window that was streamed."""
    crop = find_crop(brain_mask(read_case(case).images), HELLO.window)
    labels = from_scheme(np.asarray(nib.Nifti1Image.from_filename(mask).dataobj), BRATS_2018)
    assert {0, 2, 3} == set(np.unique(labels).tolist())  # the labels that the rule makes
    return to_page_voxels(extract_slices(labels, crop))


def check_numbers(tab: Tab, command: Command) -> None:
    """The page shows the numbers of the report."""
    report = json.loads((command.out / "r.json").read_text())
    numbers = tab.ask("glioslice.numbers")
    for key in set(report) - {"labels", "warnings"}:  # of files
        assert numbers[key] == report[key], key
    for region in ("WT", "TC", "ET"):
        assert tab.text(f"#{region}-ml") == f"{report['volumes_ml'][region]:.1f}"
        assert tab.text(f"#{region}-mm") == f"{report['diameters_mm'][region]:.1f}"
    for name in ("p50", "p90", "p99"):
        assert tab.text(f"#{name}") == f"{report['device_ms'][name]:.2f}"
    assert tab.text("#rate") == f"{report['slices_per_second']:.1f}"
    assert tab.text("#retransmitted") == str(report["retransmits"])
    assert tab.text("#done") == f"{report['masks']} of 14 slices"
    assert tab.text("#model") == "rule"
    assert SHA256 in tab.text("#digest")


def wait_for_colour(tab: Tab, colour: list[int]) -> None:
    """Wait until a hundred pixels have a colour that the page's controls have only in a swatch."""
    end = time.monotonic() + 60
    while True:
        time.sleep(0.5)
        shown = np.array(Image.open(io.BytesIO(tab.page.locator("#volume").screenshot())))
        if (np.abs(shown[..., :3].astype(int) - colour).max(axis=-1) < 16).sum() > 100:
            return
        assert time.monotonic() < end


def test_voxels_and_numbers(command: Start, tab: Open, write_case: Write) -> None:
    case = write_case()
    started = command("gate", "--input", case)
    page = tab(started.url)
    page.until("glioslice.arrivals === 4")
    early = page.voxels
    started.resume()
    page.until(ENDED)
    report = json.loads((started.out / "r.json").read_text())
    marked = report["quality"]["unsure"]
    assert page.text("#state") == f"complete, {len(marked)} slices to look at"
    assert page.ask("document.querySelector('.chip').hasAttribute('data-review')")  # amber
    wanted = sent(case, started.out / "m.nii.gz")
    assert page.voxels == wanted
    assert len(early) == len(wanted) and early != wanted  # it changed during the run
    check_numbers(page, started)
    page.until("glioslice.viewer.base.img.some((voxel) => voxel > 0)")
    images = Scene(find_crop(brain_mask(read_case(case).images), HELLO.window),
                   read_case(case).images)  # fmt: skip
    assert bytes(page.ask("Array.from(glioslice.viewer.base.img)")) == images.volume("flair")
    assert page.errors == []
    assert started.process.poll() is None  # the page stays open
    assert started.stop() == 0


def colours(tab: Tab) -> set[str]:
    """Return the regions in whose very colours the volume's canvas is drawn."""
    shot = Image.open(io.BytesIO(tab.page.locator("#volume").screenshot())).convert("RGB")
    pixels = np.asarray(shot).astype(int)
    near = {r: (np.abs(pixels - colour).max(axis=-1) < 10).sum() for r, colour in COLOURS.items()}
    return {region for region, count in near.items() if count > 200}


def wait_for_colours(tab: Tab, wanted: set[str]) -> None:
    for _ in range(120):  # software WebGL draws when it can
        if colours(tab) == wanted:
            return
        tab.page.wait_for_timeout(500)
    assert colours(tab) == wanted


def test_the_regions_are_drawn_in_their_colours(
    command: Start, tab: Open, write_case: Write
) -> None:
    page = tab(command("serve", "--input", write_case()).url)
    page.until(ENDED)
    page.ask("glioslice.viewer.nv.setInterpolation(true)")  # nearest: single voxels keep their hue
    for key in ("v", *"+++++"):  # the axial slice alone, with opaque masks
        page.page.keyboard.press(key)
    wait_for_colours(page, {"WT", "ET"})  # the rule knows no core
    page.page.keyboard.press("m")
    wait_for_colours(page, set())


def test_a_reload_in_the_middle_loses_nothing(command: Start, tab: Open, write_case: Write) -> None:
    case = write_case()
    started = command("gate", "--input", case)
    page = tab(started.url)
    page.until("glioslice.arrivals === 4")
    half = page.voxels
    page.page.reload()
    page.until("window.glioslice?.arrivals === 4")
    assert page.voxels == half
    started.resume()
    page.until(ENDED)
    page.page.reload()  # and one after the end
    page.until("window.glioslice?.arrivals === 14")
    page.until(ENDED)
    assert page.voxels == sent(case, started.out / "m.nii.gz")
    check_numbers(page, started)


def test_two_tabs_agree(command: Start, tab: Open, write_case: Write) -> None:
    started = command("gate", "--input", write_case())
    first = tab(started.url)
    first.until("glioslice.arrivals === 4")
    second = tab(started.url)  # joins late, gets all messages
    started.resume()
    for page in (first, second):
        page.until(ENDED)
        page.until("glioslice.arrivals === 14")
        check_numbers(page, started)
    assert first.voxels == second.voxels
    assert first.text("aside") == second.text("aside")
    assert first.ask("glioslice.numbers") == second.ask("glioslice.numbers")


def test_a_board_that_is_gone(command: Start, tab: Open, write_case: Write) -> None:
    case = write_case()
    started = command("exit", "--input", case)
    page = tab(started.url)
    page.until(ENDED)
    assert page.text("#state") == "ended early"
    assert "4 of 14 masks are kept in" in page.text("#message")
    page.until("glioslice.arrivals === 4")
    kept = to_page_voxels(
        extract_slices(
            from_scheme(
                np.asarray(nib.Nifti1Image.from_filename(started.out / "m.partial.nii.gz").dataobj),
                BRATS_2018,
            ),
            find_crop(brain_mask(read_case(case).images), HELLO.window),
        )
    )
    assert page.voxels == kept
    check_numbers(page, started)
    assert started.stop() == 2  # the run's own
    page.until("document.querySelector('.chip').dataset.state === 'lost'")
    assert page.voxels == kept  # the page keeps its contents


def test_a_host_that_is_killed(command: Start, tab: Open, write_case: Write) -> None:
    case = write_case()
    started = command("gate", "--input", case)
    page = tab(started.url)
    page.until("glioslice.arrivals === 4")
    started.process.send_signal(signal.SIGKILL)
    page.until("document.querySelector('.chip').dataset.state === 'lost'")
    assert "has ended" in page.text("#message")
    assert any(page.voxels)


def test_a_closed_browser_does_not_block_the_run(
    command: Start, tab: Open, write_case: Write
) -> None:
    started = command("gate", "--input", write_case())
    page = tab(started.url)
    page.until("glioslice.arrivals === 4")
    page.page.context.close()
    started.resume()
    started.wait_until_over()
    assert json.loads((started.out / "r.json").read_text())["complete"]
    assert started.stop() == 0


def test_the_address_is_in_no_command_line(command: Start, write_case: Write) -> None:
    started = command("gate", "--input", write_case())
    token = started.url.rstrip("/").rsplit("/", 1)[1]
    assert len(token) == 32
    assert not [line for line in list_processes() if token in line]


def test_a_finished_case(command: Start, tab: Open, write_case: Write) -> None:
    case = write_case()
    run = command("serve", "--input", case)
    tab(run.url).until(ENDED)
    assert run.stop() == 0
    mask = run.out / "m.nii.gz"
    again = command(None, "--open", mask, "--input", case, "--report", run.out / "r.json")
    page = tab(again.url)
    page.until(ENDED)
    assert page.text("#state").startswith("finished case, ")
    grid = page.ask("glioslice.viewer.grid")
    images = read_case(case).images
    crop = find_crop(brain_mask(images))
    labels = from_scheme(np.asarray(nib.Nifti1Image.from_filename(mask).dataobj), BRATS_2018)
    assert grid == [*crop.window, crop.z[1] - crop.z[0]]
    assert page.voxels == to_page_voxels(extract_slices(labels, crop))
    check_numbers(page, run)
    dice = page.text("#WT-dice")
    assert again.stop() == 0
    without_report = command(None, "--open", mask, "--input", case)
    page = tab(without_report.url)
    page.until(ENDED)
    assert page.text("#WT-dice") == dice != ""
    assert without_report.stop() == 0


def test_unsure_slices_are_marked(command: Start, tab: Open, write_case: Write) -> None:
    started = command("serve", "--input", write_case())
    page = tab(started.url)
    page.until(ENDED)
    report = json.loads((started.out / "r.json").read_text())
    marked = report["quality"]["unsure"]
    first, last = 4, 17  # the numbers of the case's slices
    assert first in marked and last not in marked
    for number in (first, last):
        page.page.locator("#slice").fill(str(number - first))
        page.until(f"document.getElementById('where').textContent.startsWith('{number} of 20')")
        rank = f", look ({marked.index(number) + 1})" if number in marked else ""
        assert page.text("#where") == f"{number} of 20{rank}"
    assert page.text("#look ol").split("\n") == [f"slice {number}" for number in marked]
    page.page.locator("#look button").nth(1).click()  # a link to the second worst
    page.until(f"document.getElementById('where').textContent.startsWith('{marked[1]} of')")
    for warning in report["warnings"]:
        assert warning in page.text("#warnings")
    [odd] = [warning for warning in report["warnings"] if "unlike the brains" in warning]
    assert odd in page.text("#warnings")  # a block of 7 mL is no brain
    assert page.errors == []


def test_outlines_the_ground_truth_and_contrast(
    command: Start, tab: Open, write_case: Write
) -> None:
    case = write_case()
    page = tab(command("serve", "--input", case).url)
    page.until(ENDED)
    page.until("glioslice.viewer.base.img.some((voxel) => voxel > 0)")
    crop = find_crop(brain_mask(read_case(case).images), HELLO.window)
    truth = read_case(case).labels
    assert truth is not None
    page.until("glioslice.viewer.truth !== null")
    drawn = np.array(page.ask("Array.from(glioslice.viewer.truth.img)"))
    true = np.frombuffer(to_page_voxels(extract_slices(truth, crop)), np.uint8)
    assert set(np.unique(true[drawn > 0])) == {1, 2, 3}
    assert 0 < np.count_nonzero(drawn) < np.count_nonzero(true)  # its surfaces alone
    assert page.ask("glioslice.viewer.truth.opacity") == 0
    page.page.keyboard.press("g")
    page.until("glioslice.viewer.truth.opacity === 1")
    filled = page.voxels
    page.page.keyboard.press("+")  # redraws the masks, above which the ground truth stays
    page.until("!glioslice.viewer.waiting")
    colour = page.ask("Array.from(glioslice.viewer.truth.colormapLabel.lut.slice(4, 7))")
    wait_for_colour(page, colour)
    page.ask("{ glioslice.viewer.labels.fill(2); }")  # the rule's masks are noise, all surface
    page.page.keyboard.press("o")
    x, y, z = page.ask("glioslice.viewer.grid")
    surface = x * y * z - (x - 2) * (y - 2) * (z - 2)
    page.until(f"glioslice.viewer.overlay.img.filter(Boolean).length === {surface}")
    page.page.keyboard.press("o")
    page.until(f"glioslice.viewer.overlay.img.filter(Boolean).length === {x * y * z}")
    assert sum(map(bool, filled)) < x * y * z
    page.page.locator("#contrast summary").click()
    page.page.locator("#window").fill("100")
    page.page.locator("#level").fill("150")
    assert page.ask("[glioslice.viewer.base.cal_min, glioslice.viewer.base.cal_max]") == [100, 200]
    page.page.locator("#reset").click()
    assert page.ask("glioslice.viewer.base.cal_max") >= 255
    for region in ("WT", "TC", "ET"):
        dice = page.ask(f"glioslice.numbers.dice.{region}")
        assert page.text(f"#{region}-dice") == f"{dice:.3f}"
    assert page.errors == []


def test_the_planes_fill_the_window_and_the_tools_one_row(
    command: Start, tab: Open, write_case: Write
) -> None:
    page = tab(command("serve", "--input", write_case()).url)
    page.until(ENDED)
    page.page.set_viewport_size({"width": 1440, "height": 900})
    assert page.ask("document.querySelector('.tools').offsetHeight") < 60
    for width, height in ((1440, 900), (390, 844)):
        page.page.set_viewport_size({"width": width, "height": height})
        assert page.ask("document.documentElement.scrollWidth - window.innerWidth") <= 0
        arranged = """import('./viewer.js').then(({ arrange }) => {
            const { width, height } = document.getElementById('volume').getBoundingClientRect();
            return [width, height, ...arrange(width, height, [160, 192, 140])];
        })"""
        wide, tall, *tiles = page.ask(arranged)
        assert {0, 1, 2} <= {tile[0] for tile in tiles}  # no plane vanishes
        axial = next(tile for tile in tiles if tile[0] == 0)
        shown = min(axial[3] * wide / 160, axial[4] * tall / 192)
        assert shown > 0.75 * min(wide / 160, tall / 192)  # nearly as large as alone


def test_keys(command: Start, tab: Open, write_case: Write) -> None:
    page = tab(command("serve", "--input", write_case()).url)
    page.until(ENDED)
    press = page.page.keyboard.press
    place = page.ask("glioslice.viewer.place.z")
    assert page.ask("document.getElementById('follow').checked")
    press("ArrowDown")
    assert page.ask("glioslice.viewer.place.z") == place - 1
    assert not page.ask("document.getElementById('follow').checked")  # it stops following
    press("PageDown")
    assert page.ask("glioslice.viewer.place.z") == max(0, place - 1 - 10)
    press("f")
    assert page.ask("document.getElementById('follow').checked")
    page.until("glioslice.viewer.base.img.some((voxel) => voxel > 0)")
    before = page.ask("glioslice.viewer.base.img.join()")
    press("2")
    assert page.ask("document.querySelector('#modalities input:checked').value") == "t1"
    page.until(f"glioslice.viewer.base.img.join() !== '{before}'")
    press("-")
    assert page.text("#opaque") == "40 %"
    assert page.ask("glioslice.viewer.opacity") == 0.4
    press("v")
    assert page.ask("glioslice.viewer.view") == "axial"
    press("?")
    assert page.page.locator("#help").is_visible()
    press("Escape")
    assert not page.page.locator("#help").is_visible()
    assert page.errors == []


def test_it_fits_a_tablet(command: Start, tab: Open, write_case: Write) -> None:
    page = tab(command("serve", "--input", write_case()).url)
    page.until(ENDED)
    for width, height in ((768, 1024), (1024, 768), (1366, 768)):
        page.page.set_viewport_size({"width": width, "height": height})
        over = page.ask("document.documentElement.scrollWidth - window.innerWidth")
        assert over <= 0, (width, height)
        assert page.page.locator("#WT-ml").is_visible()


def test_another_page_cannot_read_the_patient(command: Start, tab: Open, write_case: Write) -> None:
    started, other = (command("serve", "--input", write_case()) for _ in range(2))
    page = tab(other.url)  # another origin of the same machine, and it even knows the token
    page.until(ENDED)
    read = f"fetch('{started.url}volume/flair').then(() => 'read', () => 'refused')"
    assert page.ask(read) == "refused"
    address = started.url.replace("http", "ws") + "feed"
    received = f"""new Promise((resolve) => {{
        try {{
            const socket = new WebSocket('{address}');
            socket.onmessage = () => resolve('read');
            socket.onerror = () => resolve('refused');
        }} catch {{ resolve('refused'); }}
    }})"""
    assert page.ask(received) == "refused"
    framed = f"""new Promise((resolve) => {{
        const frame = document.createElement('iframe');
        frame.src = '{started.url}';
        frame.onload = () => resolve(frame.contentWindow.length);
        document.body.append(frame);
        setTimeout(() => resolve('refused'), 3000);
    }})"""
    page.ask(framed)
    assert (
        page.ask("(() => { try { return frames[0].document.title } catch { return '' } })()") == ""
    )
