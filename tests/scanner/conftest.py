"""Heads and studies that the tests of the scanner share."""

from pathlib import Path

import pytest

from tests.scanner.simulated_scanner import Head, phantom_head


@pytest.fixture(scope="session")
def head() -> Head:
    """A head with tumour, skull and neck."""
    return phantom_head(0)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """An empty folder for a study."""
    folder = tmp_path / "study"
    folder.mkdir()
    return folder
