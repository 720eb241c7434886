"""What travels to a board: wheels for its Python and machine, a model folder, and their digests."""

import io
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from glioslice.card import CARD, SHIPPED, read_card_of, shipped
from glioslice.errors import GliosliceError

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / "build" / "deploy"

RUNTIMES = {
    "litert": "ai-edge-litert==2.3.0",
    "tflite": "tflite-runtime==2.14.0",
    "coral": "tflite-runtime==2.14.0",
}
"""What a board gets, as the products were judged on it; the Edge TPU's library wants tflite."""

GLIBCS = ("2_17", "2_27", "2_28", "2014")

DIGESTS = "SHA256SUMS"


@dataclass(frozen=True)
class Payload:
    """The files of a release by their path in it, and the model's name among them."""

    files: dict[str, bytes]
    model: str

    @property
    def digests(self) -> bytes:
        """The lines that sha256sum -c reads."""
        lines = [
            f"{sha256(content).hexdigest()}  {n}\n" for n, content in sorted(self.files.items())
        ]
        return "".join(lines).encode()

    @property
    def release(self) -> str:
        """A name that changes with any byte."""
        return sha256(self.digests).hexdigest()[:16]

    @property
    def archive(self) -> bytes:
        """All files and their digests as a tar archive; the same files give the same bytes."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in sorted({**self.files, DIGESTS: self.digests}.items()):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


def make_payload(model: Path, machine: str, python: tuple[int, int], runtime: str) -> Payload:
    """Return what a board needs; nothing is fetched by the board itself.

    Raises GliosliceError if a wheel is not to be had, or the model is not what its card says.
    """
    read_card_of(model)
    wheels = fetched(machine, python, runtime)
    files = {f"wheels/{path.name}": path.read_bytes() for path in wheels}
    for path in (model, model.parent / CARD):
        files[f"model/{path.name}"] = path.read_bytes()
    return Payload(files, f"model/{model.name}")


def chosen_model(asked: str, runtime: str) -> Path:
    """Return the model file that `--model` names: a shipped size or a .tflite file."""
    if asked in SHIPPED:
        return shipped(asked) / f"{asked}-int8.tflite"
    path = Path(asked)
    if path.suffix != ".tflite":
        raise GliosliceError(f"--model {asked}: a .tflite file, or one of {', '.join(SHIPPED)}")
    return path


def fetched(machine: str, python: tuple[int, int], runtime: str) -> list[Path]:
    """Return the wheels, made or downloaded into build/deploy/ where they are not there yet."""
    tag = "".join(map(str, python))
    folder = CACHE / f"{machine}-cp{tag}-{runtime}"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("glioslice-*.whl"):
        old.unlink()
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    [ours] = folder.glob("glioslice-*.whl")
    platforms = [w for g in GLIBCS for w in ("--platform", f"manylinux{_joined(g)}_{machine}")]
    abis = [word for abi in (f"cp{tag}", "abi3", "none") for word in ("--abi", abi)]
    _pip(
        "download", "--only-binary=:all:", *platforms, *abis, "--implementation", "cp",
        "--python-version", ".".join(map(str, python)), "--dest", str(folder),
        "--find-links", str(folder), str(ours), RUNTIMES[runtime],
        *(("numpy<2",) if runtime != "litert" else ()),
    )  # fmt: skip
    return sorted(folder.glob("*.whl"))


def _joined(glibc: str) -> str:
    return glibc if "_" not in glibc else f"_{glibc}"


def _pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise GliosliceError(
            f"pip {words[0]}: {(said or ['failed'])[-1].removeprefix('ERROR: ')}; this machine "
            "needs the internet once, the board does not"
        )
