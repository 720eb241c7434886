"""Run the conversion command in this process."""

from pathlib import Path

import pytest

from convert import to_tflite


def run_convert(*arguments: object) -> None:
    to_tflite.main([str(argument) for argument in arguments])


def expect_error(*arguments: object) -> None:
    """Run the command, which must end with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        run_convert(*arguments)
    assert ended.value.code == 2


def files_in(folder: Path) -> list[str]:
    """The files below a folder, relative to it."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
