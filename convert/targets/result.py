"""What a check for one target found."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from glioslice.errors import GliosliceError


@dataclass(frozen=True)
class Outcome:
    """`ok` if nothing stands against the file on `target`.

    `rows` are the lines of a table, `report` the same and more as JSON would hold it, and `files`
    what was made for the target beside the TFLite file, by name. `against` says which ops stand
    against it and how to mend it.
    """

    target: str
    ok: bool
    rows: tuple[tuple[str, str], ...]
    report: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    against: str = ""

    @property
    def entry(self) -> dict[str, Any]:
        """What `report.json` says of the target."""
        return {"target": self.target, "ok": self.ok, **self.report}

    @property
    def table(self) -> str:
        """The rows as lines of text."""
        width = max((len(what) for what, _ in self.rows), default=0)
        head = f"{self.target}: {'suits' if self.ok else 'does not suit'}"
        return "\n".join([head, *(f"  {what:{width}}  {value}" for what, value in self.rows)])


def tool(module: str, target: str, package: str) -> ModuleType:
    """Return a module that a target needs.

    Raises GliosliceError naming the package to install if it is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise GliosliceError(
            f"the target {target} needs {package}: pip install {package}"
        ) from None
