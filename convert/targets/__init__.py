"""Check, without the board, whether a packed int8 file is compatible with it.

A check takes the file's content and a name for it and returns a `TargetResult`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from glioslice.errors import GliosliceError


@dataclass(frozen=True)
class TargetResult:
    """`ok` if nothing was found that is not compatible with `target`.

    `verified` is whether the target's own tool has seen the file; without it `ok` is a reading of
    the documentation. `rows` are the lines of a table, `report` holds the same and more for
    `report.json`, and `files` are extra files made for the target, by name. `problems` names the
    incompatible ops and what to use instead.
    """

    target: str
    ok: bool
    rows: tuple[tuple[str, str], ...]
    report: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    problems: str = ""
    verified: bool = True

    @property
    def verdict(self) -> str:
        """The result in words."""
        if not self.ok:
            return "not compatible"
        return "compatible" if self.verified else "not verified"

    @property
    def entry(self) -> dict[str, Any]:
        """The target's entry in `report.json`."""
        return {"target": self.target, "ok": self.ok, "verified": self.verified, **self.report}

    @property
    def table(self) -> str:
        """The rows as lines of text."""
        width = max((len(what) for what, _ in self.rows), default=0)
        head = f"{self.target}: {self.verdict}"
        return "\n".join([head, *(f"  {what:{width}}  {value}" for what, value in self.rows)])


def require_tool(module: str, target: str, package: str) -> ModuleType:
    """Return the Python module that a target needs.

    Raises GliosliceError naming the package to install if it is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise GliosliceError(
            f"the target {target} needs {package}: pip install {package}"
        ) from None
