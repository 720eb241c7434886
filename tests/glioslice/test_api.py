"""The public API: every name can be imported, and importing the packages stays cheap."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import device
import glioslice
from tests.conftest import ROOT

PACKAGES = (glioslice, device)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.__name__))
def test_every_public_name_is_what_type_checkers_see(package: object) -> None:
    """The imports under TYPE_CHECKING and those on first use must agree."""
    tree = ast.parse(Path(package.__file__).read_text())  # type: ignore[attr-defined]
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imports = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(imports) == set(package.__all__)  # type: ignore[attr-defined]
    for name, (module, original) in imports.items():
        public = getattr(package, name)
        assert public is getattr(import_module(str(module)), original)
        assert name in dir(package)


def test_an_unknown_name_is_an_attribute_error() -> None:
    for package in PACKAGES:
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            package.nothing  # noqa: B018


def test_importing_the_packages_loads_no_library() -> None:
    program = (
        "import sys, glioslice, device\n"
        "print({'numpy', 'nibabel', 'serial', 'PIL'} & set(sys.modules) or 'none')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "none\n"


def test_the_packages_are_marked_as_typed() -> None:
    for package in PACKAGES:
        assert (Path(str(package.__file__)).parent / "py.typed").is_file()
