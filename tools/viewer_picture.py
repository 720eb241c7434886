"""Stream the phantom with a page, and keep the page as it looks on the way: docs/desk.png.

    python tools/viewer_picture.py

The rates in the picture are those of the simulated line in its address, on the machine that ran it.
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

from benchmarks.folds import ROOT
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes

PICTURE = ROOT / "docs" / "desk.png"
PORT = "sim://?baud=460800&loss=0.001"
SIZE = {"width": 1440, "height": 900}
WEBGL_IN_SOFTWARE = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

SLICES = 77
"""Of the phantom's 127: the tumour is there, and growing."""

PATIENCE = 300.0
"""Seconds until so many have arrived."""


def main() -> None:
    """Do what the command line says."""
    parser = cli.parser("Photograph the page.", "python tools/viewer_picture.py")
    cli.run(work, parser.parse_args())


def work(_: argparse.Namespace) -> None:
    """Stream, wait, keep the picture."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "--port",
            PORT,
            "--images",
            "lossless",
            "--output",
            str(Path(folder, "mask.nii.gz")),
            "--view",
            "--quiet",
        ]
        stream = [sys.executable, str(ROOT / "firmware_host" / "stream.py"), *words]
        with subprocess.Popen(stream, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout
                said = process.stdout.readline()
                address = re.match(r"page: (\S+)", said)
                if address is None:
                    raise GliosliceError(f"stream.py said {said!r} where its page was expected")
                write_bytes(PICTURE, picture(address[1]))
            finally:
                process.send_signal(signal.SIGINT)
    print(f"written: {PICTURE.relative_to(ROOT)}")


def picture(address: str) -> bytes:
    """Return the page at `address` as a PNG, once SLICES have arrived."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=WEBGL_IN_SOFTWARE
        )
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.goto(address)
        arrived(page)
        return smaller(page.screenshot())


def smaller(png: bytes) -> bytes:
    """Return a picture in 256 colours, which people do not tell from all of them."""
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).quantize(256).save(file, "PNG", optimize=True)
    return file.getvalue()


def arrived(page: Any) -> None:
    """Wait for the slices; the page's policy lets playwright's own waiting evaluate nothing."""
    end = time.monotonic() + PATIENCE
    while page.evaluate("glioslice.arrivals.length ?? glioslice.arrivals") < SLICES:
        if time.monotonic() > end:
            raise GliosliceError(f"{SLICES} slices did not arrive in {PATIENCE:.0f} s")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
