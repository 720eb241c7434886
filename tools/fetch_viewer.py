"""Fetch the vendored NiiVue from npm at the version in vendor/niivue.json.

    python tools/fetch_viewer.py             # must be the file that is committed
    python tools/fetch_viewer.py 0.70.0      # another version; then run the tests of the page

firmware_host/viewer/vendor/README.md says why it is committed.
"""

import argparse
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_bytes, write_json

VENDOR = Path(__file__).resolve().parent.parent / "firmware_host" / "viewer" / "vendor"
NOTE = VENDOR / "niivue.json"


def main() -> None:
    """Read the command line and fetch."""
    parser = cli.parser("Fetch NiiVue from npm.", "python tools/fetch_viewer.py")
    parser.add_argument("version", nargs="?", help="default: the committed one")
    cli.run(fetch, parser.parse_args())


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


if __name__ == "__main__":
    main()
