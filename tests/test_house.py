"""What holds for the repository: arrows between folders, names, documents, versions, skips."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.goldens import SLICES

FOLDERS = (
    "glioslice", "device", "training", "convert", "firmware_host", "scanner", "benchmarks", "tools"
)  # fmt: skip
PUBLIC = ("glioslice", "device", "convert.to_tflite")
"""The modules that make up the public API."""

HEAVY = ("torch", "tensorflow", "scipy", "monai", "onnx", "rich", "sklearn")
IMPORT_ALL = f"""
import pkgutil, sys, importlib
sys.modules.update(dict.fromkeys({HEAVY}))  # an import of one of them now raises
for package in ("glioslice", "device"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""

VERBS_OF_SPEECH = {"say", "says", "said", "tell", "tells", "told", "asked", "carry_out"}
AMBIGUOUS_NAMES = {"Run", "Row", "Outcome", "Job", "Done", "Told", "Tried", "Word"}
"""Class names that are unclear without their module."""

DOCUMENT = re.compile(r"\bdocs/[\w-]+\.md\b|(?<![\w/])[A-Z]+\.md\b")
PRIVATE = {"HOUSE.md", "FACTS.md", "STYLE.md"}
"""Plans that are not part of the repository."""


@cache
def tracked(*patterns: str) -> tuple[str, ...]:
    """The paths that git tracks, or would if they were added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(path for path in done.stdout.splitlines() if (ROOT / path).is_file())


@cache
def parsed(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), path)


def imported(path: str) -> Iterator[str]:
    """The modules that a file imports, `package.name` for each name that it imports from one."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


AGAINST_THE_ARROWS = {
    "glioslice/labels.py": "device.engine",
    "device/engine.py": "training.network",
    "firmware_host/__init__.py": "device.engine",
    "training/train.py": "device.engine",
    "training/network.py": "convert.pack",
    "convert/pack.py": "firmware_host",
    "device/segment.py": "benchmarks.folds",
    "firmware_host/stream.py": "tools.goldens",
    "scanner/series.py": "firmware_host.outputs",
    "glioslice/wire/framing.py": "glioslice.wire.link",
}
"""Modules, and what they may not import."""


@pytest.mark.slow
def test_imports_against_the_arrows_fail(tmp_path: Path) -> None:
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    kept = lint_imports(tmp_path)
    assert kept.returncode == 0, kept.stdout
    for module, added in AGAINST_THE_ARROWS.items():
        with (tmp_path / module).open("a") as file:
            file.write(f"\nimport {added}\n")
    broken = lint_imports(tmp_path)
    assert broken.returncode != 0
    found = " ".join(broken.stdout.split())  # without the breaks of lines
    for module, added in AGAINST_THE_ARROWS.items():
        name = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert f"{name} -> {added} (l." in found, (module, broken.stdout)


def test_board_code_imports_nothing_heavy() -> None:
    """It also runs without: nibabel tries to import scipy, and does not need it."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {"glioslice.cases", "glioslice.wire.link", "device.engine"} <= set(done.stdout.split())


def test_no_script_hides_a_package() -> None:
    """A script's folder comes first on sys.path, so its modules need names of their own."""
    taken = set(sys.stdlib_module_names) | set(metadata.packages_distributions())
    for folder in FOLDERS[1:]:
        mine = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", "__main__"}
        assert not mine & taken


def test_no_patient_voxels_are_tracked() -> None:
    volumes = tracked("*.nii", "*.nii.gz", "*.npy", "*.npz")
    assert volumes == (str(SLICES.relative_to(ROOT)),)  # the phantom's: test_goldens.py proves it


@pytest.mark.slow
def test_nothing_but_benchmarks_imports_tests() -> None:
    """Benchmarks, which never ship, may measure what the simulated scanner of the tests makes."""
    outside = [path for path in tracked("*.py") if not path.startswith(("tests/", "benchmarks/"))]
    assert not [
        (path, name)
        for path in outside
        for name in imported(path)
        if name.partition(".")[0] == "tests"
    ]


def test_examples_import_the_public_api_alone() -> None:
    ours = {*FOLDERS, "tests"}
    for path in tracked("examples/*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or "."]
            else:
                continue
            for module in modules:
                assert module.partition(".")[0] not in ours or module in PUBLIC, (path, module)


@pytest.mark.slow
def test_names_come_from_the_glossary() -> None:
    """CONTRIBUTING.md has the words to use instead."""
    found = []
    for path in tracked("*.py"):
        if path.partition("/")[0] not in FOLDERS:
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                names = {node.name, *(argument.arg for argument in arguments)}
                found += [
                    (path, node.lineno, name)
                    for name in names
                    if name.strip("_") in VERBS_OF_SPEECH
                ]
            elif isinstance(node, ast.ClassDef) and node.name.strip("_") in AMBIGUOUS_NAMES:
                found.append((path, node.lineno, node.name))
    assert not found, "\n".join(map(str, found))


def test_documents_that_are_cited_exist() -> None:
    documents = tracked("*.md")
    for path in tracked("*.py", "*.md", "*.toml", "*.yaml", "Makefile", ".ci/run"):
        if path == "tests/test_house.py":
            continue
        for cited in DOCUMENT.findall((ROOT / path).read_text(encoding="utf-8")):
            assert cited not in PRIVATE, path
            assert cited in documents, (path, cited)


SKIPPING = """
import pytest

def test_listed():
    pytest.skip("no board: --device names one")

def test_unlisted():
    pytest.skip("no compiler on this machine")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "outcome"), [("1", "1 failed, 1 skipped"), ("", "2 skipped")])
def test_a_skip_fails_in_ci_unless_it_is_listed(ci: str, outcome: str, tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text(SKIPPING)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "CI": ci}, capture_output=True, text=True, check=False
    )
    assert outcome in done.stdout
    assert ("skipped in CI: " in done.stdout) == bool(ci)


def test_hooks_and_constraints_name_the_same_versions() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(line.split("==") for line in text.splitlines() if "==" in line)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    [ruff] = re.findall(r"ruff-pre-commit\n\s+rev: v(\S+)", hooks)
    assert ruff == pinned["ruff"]
