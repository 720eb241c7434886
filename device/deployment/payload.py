"""What travels to a board: wheels for its Python and machine, a model folder, and their digests."""

import io
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from shutil import rmtree

from device.deployment.board_state import GLIBC
from device.goldens import GOLDENS
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.model_card import CARD, SHIPPED, read_card_of, shipped

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / "build" / "deploy"

RUNTIMES = {
    "litert": "ai-edge-litert==2.3.0",
    "tflite": "tflite-runtime==2.14.0",
    "coral": "tflite-runtime==2.14.0",
}
"""What a board gets, as the products were judged on it; the Edge TPU's library wants tflite."""

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
    goldens = model.parent / GOLDENS  # a float file needs none; the self-test misses others
    for path in (model, model.parent / CARD, *([goldens] if goldens.is_file() else [])):
        files[f"model/{path.name}"] = path.read_bytes()
    return Payload(files, f"model/{model.name}")


def chosen_model(asked: str) -> Path:
    """Return the model file that `--model` names: a shipped size or a .tflite file."""
    if asked in SHIPPED:
        return shipped(asked) / f"{asked}-int8.tflite"
    path = Path(asked)
    if path.suffix != ".tflite":
        raise GliosliceError(f"--model {asked}: a .tflite file, or one of {', '.join(SHIPPED)}")
    return path


def fetched(machine: str, python: tuple[int, int], runtime: str) -> list[Path]:
    """Return the wheels: ours made anew, the others downloaded into build/deploy/ once.

    Raises GliosliceError if pip cannot make or find one.
    """
    tag = f"cp{python[0]}{python[1]}"
    folder = CACHE / f"{machine}-{tag}-{runtime}"
    ours, others, asked = folder / "ours", folder / "others", folder / "asked"
    rmtree(ours, ignore_errors=True)
    _pip("wheel", "--no-deps", "--wheel-dir", str(ours), str(ROOT))
    [wheel] = ours.glob("*.whl")
    pins = _pins(python)
    words = [word for name in _platforms(machine, runtime) for word in ("--platform", name)]
    words += [word for abi in (tag, "abi3", "none") for word in ("--abi", abi)]
    words += ["--python-version", ".".join(map(str, python)), RUNTIMES[runtime]]
    words += [] if runtime == "litert" else ["numpy<2"]
    wanted = "\n".join([*words, pins, (ROOT / "pyproject.toml").read_text()])
    if not asked.is_file() or asked.read_text() != wanted:
        asked.unlink(missing_ok=True)
        rmtree(others, ignore_errors=True)  # of two versions of a package pip installs neither
        (folder / "constraints.txt").write_text(pins)
        _pip(
            "download", "--only-binary=:all:", "--implementation", "cp", *words, str(wheel),
            "--constraint", str(folder / "constraints.txt"), "--dest", str(others),
        )  # fmt: skip
        (others / wheel.name).unlink()
        write_bytes(asked, wanted.encode())
    return sorted([wheel, *others.glob("*.whl")], key=lambda path: path.name)


def _platforms(machine: str, runtime: str) -> list[str]:
    """Return the names of all that wheels may be built for, of a runtime that sets the oldest."""
    minors = range(17, GLIBC[runtime][1] + 1)
    return [*(f"manylinux_2_{minor}_{machine}" for minor in minors), f"manylinux2014_{machine}"]


def _pins(python: tuple[int, int]) -> str:
    """Return the versions that were tested together, as far as they have wheels."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    # The numpy that conversion needs is older than Python 3.13.
    new = python >= (3, 13)
    return "\n".join(line for line in lines if not (new and line.startswith("numpy==")))


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
