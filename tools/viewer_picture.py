"""Take the picture of the live page in the documentation, docs/host.png, while the phantom streams.

    python tools/viewer_picture.py

The rates in the picture are those of a simulated line on the machine that ran it.
"""

import argparse
import io
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import ROOT
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes

PICTURE = ROOT / "docs" / "host.png"
PORT = "sim://?baud=460800&loss=0.001"
SIZE = {"width": 1440, "height": 900}
WEBGL_IN_SOFTWARE = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

SLICES = 77
"""Slices of the phantom's 127 after which the picture is taken: the tumour is visible."""

TIMEOUT = 300.0
"""Seconds until they have arrived."""


def main() -> None:
    """Read the command line and take the picture."""
    parser = cli.parser("Take the picture of the live page.", "python tools/viewer_picture.py")
    cli.run(take_picture, parser.parse_args())


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
    """Return a picture in 256 colours, which looks the same."""
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).quantize(256).save(file, "PNG", optimize=True)
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
