"""From a scanner's series to a ready case, and from a mask back to the scanner's space."""

from importlib.util import find_spec

from glioslice.errors import GliosliceError

REQUIRED_PACKAGES = ("SimpleITK", "scipy", "pydicom", "highdicom", "dcm2niix")
"""Modules of the extra `scanner`; `brain_extraction` asks for its own when it needs them."""


def check_installed() -> None:
    """Raise GliosliceError if the extra `scanner` is not installed."""
    missing = [name for name in REQUIRED_PACKAGES if find_spec(name) is None]
    if missing:
        raise GliosliceError(
            f"not installed: {', '.join(missing)}; run: pip install 'glioslice[scanner]'"
        )
