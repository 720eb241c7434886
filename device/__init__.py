"""Public API of what runs on a board: a TFLite engine, and a volume to its masks.

    engine = device.Engine(device.find_model("nano"))
    labels = device.segment_images(case.images, engine).labels

Every name is imported on first use. `segment_images` is `device.segment.segment`, which cannot be
exported under its own name: `device.segment` is the module, and the command `python -m
device.segment`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device.engine import Engine
    from device.segment import Segmentation
    from device.segment import segment as segment_images
    from glioslice.model_card import find_model

__all__ = ["Engine", "Segmentation", "find_model", "segment_images"]

_SOURCES = {
    "Engine": "device.engine:Engine",
    "Segmentation": "device.segment:Segmentation",
    "find_model": "glioslice.model_card:find_model",
    "segment_images": "device.segment:segment",
}
"""Where each public name comes from: `module:name`."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _SOURCES[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
