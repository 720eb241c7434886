"""Public API of what runs on a board: a TFLite engine, and a volume to its masks.

    engine = device.Engine(device.find_model("nano"))
    labels = device.segment_images(case.images, engine).labels

Every name is imported on first use. `segment_images` is `device.segment.segment`, which cannot be
exported under its own name: `device.segment` is the module, and the command `python -m
device.segment`.
"""

from typing import TYPE_CHECKING

from glioslice import lazy_exports

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

__getattr__, __dir__ = lazy_exports(globals(), _SOURCES)
