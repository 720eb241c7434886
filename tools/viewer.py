"""The viewer of the live page: fetch NiiVue, which is vendored, and take the page's picture.

    python tools/viewer.py fetch             # must be the file that is committed
    python tools/viewer.py fetch 0.70.0      # another version; then run the tests of the page
    python tools/viewer.py picture           # docs/host.png, while the phantom streams

NiiVue comes from npm at the version in vendor/niivue.json; firmware_host/viewer/vendor/README.md
says why it is committed. The rates in the picture are those of a simulated line on the machine that
ran it.
"""

import argparse
import hashlib
import io
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import ROOT
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_bytes, write_json

VENDOR = ROOT / "firmware_host" / "viewer" / "vendor"
NOTE = VENDOR / "niivue.json"

PICTURE = ROOT / "docs" / "host.png"
PORT = "sim://?baud=230400&loss=0.001"
SIZE = {"width": 1440, "height": 900}
WEBGL_IN_SOFTWARE = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

SLICES = 77
"""Slices of the phantom's 127 after which the picture is taken: the tumour is visible."""

RARE = ((255, 70, 220),)
"""Colours of few pixels, which a palette would leave out: the swatch of the ground truth."""

TIMEOUT = 300.0
"""Seconds until they have arrived."""


def main() -> None:
    """Read the command line, and fetch or take the picture."""
    parser = cli.parser(
        "Fetch the viewer of the live page, or take the page's picture.",
        "python tools/viewer.py fetch",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fetching = commands.add_parser("fetch", help="fetch NiiVue from npm")
    fetching.add_argument("version", nargs="?", help="default: the committed one")
    fetching.set_defaults(command=fetch)
    picture = commands.add_parser("picture", help="take the picture of the live page")
    picture.set_defaults(command=take_picture)
    arguments = parser.parse_args()
    cli.run(arguments.command, arguments)


def fetch(arguments: argparse.Namespace) -> None:
    """Replace the file, and update the note if the version is another."""
    note = read_json(NOTE)
    version = arguments.version or note["version"]
    with tempfile.TemporaryDirectory() as folder:
        packing = ["npm", "pack", "--silent", f"{note['package']}@{version}"]
        if subprocess.run(packing, cwd=folder, stdout=subprocess.DEVNULL, check=False).returncode:
            raise GliosliceError(f"npm has no {note['package']} {version}, or cannot be reached")
        [package] = Path(folder).glob("*.tgz")
        with tarfile.open(package) as archive:
            member = archive.extractfile(note["member"])
            if member is None:
                raise GliosliceError(f"{package.name}: holds no {note['member']}")
            content = member.read()
    found = hashlib.sha256(content).hexdigest()
    if version == note["version"] and found != note["sha256"]:
        raise GliosliceError(
            f"npm's {version} has SHA-256 {found}, but {NOTE.name} has {note['sha256']}"
        )
    write_bytes(VENDOR / note["file"], content)
    write_json(NOTE, note | {"version": version, "sha256": found})
    print(f"{note['package']} {version}: {len(content):,} bytes, SHA-256 {found}")


def take_picture(_: argparse.Namespace) -> None:
    """Stream the phantom, wait, and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "--port",
            PORT,
            "--images",
            "lossless",
            "--output",
            str(Path(folder, "mask.nii.gz")),
            "--view",
            "--quiet",
        ]
        stream = [sys.executable, str(ROOT / "firmware_host" / "stream.py"), *options]
        with subprocess.Popen(stream, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout
                line = process.stdout.readline()
                address = re.match(r"page: (\S+)", line)
                if address is None:
                    raise GliosliceError(f"stream.py printed {line!r}, not the address of its page")
                write_bytes(PICTURE, screenshot(address[1]))
            finally:
                process.send_signal(signal.SIGINT)
    print(f"written: {PICTURE.relative_to(ROOT)}")


def screenshot(address: str) -> bytes:
    """Return the page at `address` as a PNG, once SLICES have arrived."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=WEBGL_IN_SOFTWARE
        )
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.goto(address)
        wait_for_slices(page)
        return reduce_colours(page.screenshot(timeout=1000 * TIMEOUT))


def reduce_colours(png: bytes) -> bytes:
    """Return a picture in 256 colours, which looks the same; a rare colour keeps its own."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    few = picture.quantize(256 - len(RARE))
    palette = [
        *(few.getpalette() or [])[: 3 * (256 - len(RARE))],
        *(c for rgb in RARE for c in rgb),
    ]
    table = Image.new("P", (1, 1))
    table.putpalette(palette)
    file = io.BytesIO()
    picture.quantize(palette=table, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def wait_for_slices(page: Any) -> None:
    """Wait for the slices; the page's policy forbids what playwright's own waiting evaluates."""
    end = time.monotonic() + TIMEOUT
    while page.evaluate("glioslice.arrivals.length ?? glioslice.arrivals") < SLICES:
        if time.monotonic() > end:
            raise GliosliceError(f"{SLICES} slices did not arrive in {TIMEOUT:.0f} s")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
