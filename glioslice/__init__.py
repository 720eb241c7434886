"""Public API of glioslice: cases, masks, metrics and the serial protocol.

    case = glioslice.read_case("BraTS2021_00000")
    labels = device.segment_images(case.images, device.Engine(glioslice.find_model())).labels
    glioslice.write_mask("mask.nii.gz", glioslice.to_scheme(labels, case.scheme), case.space)

    with glioslice.Connection(glioslice.open_port("/dev/ttyUSB0"), active=True) as connection:
        connection.open()
        connection.send(b"your own bytes")

Every name is imported on first use, so that `import glioslice` loads neither numpy nor pyserial.
Three of them are modules: `preprocessing` (a volume to slices and back), `messages` (what host and
board send each other) and `codecs` (images and masks as bytes). The engine is in `device`, and
`examples/` has four complete programs. Research software, not a medical device.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glioslice import preprocessing
    from glioslice.cases import MODALITIES, Case, find_case, find_cases, phantom_case, read_case
    from glioslice.dataset_layouts import CaseFiles
    from glioslice.errors import GliosliceError
    from glioslice.labels import REGIONS, to_scheme
    from glioslice.metrics import region_dice, volumes_ml
    from glioslice.model_card import find_model
    from glioslice.montage import write_montage
    from glioslice.nifti import Space, write_mask
    from glioslice.sanity_checks import find_warnings
    from glioslice.wire import codecs, messages
    from glioslice.wire.connection import Connection
    from glioslice.wire.link import LinkError
    from glioslice.wire.ports import open_port
    from glioslice.wire.transport import Port, PortError
    from glioslice.wire.transport import pair as memory_ports

__version__ = "0.1.0"

__all__ = [
    "MODALITIES",
    "REGIONS",
    "Case",
    "CaseFiles",
    "Connection",
    "GliosliceError",
    "LinkError",
    "Port",
    "PortError",
    "Space",
    "codecs",
    "find_case",
    "find_cases",
    "find_model",
    "find_warnings",
    "memory_ports",
    "messages",
    "open_port",
    "phantom_case",
    "preprocessing",
    "read_case",
    "region_dice",
    "to_scheme",
    "volumes_ml",
    "write_mask",
    "write_montage",
]

_SOURCES = {
    "MODALITIES": "glioslice.cases:MODALITIES",
    "REGIONS": "glioslice.labels:REGIONS",
    "Case": "glioslice.cases:Case",
    "CaseFiles": "glioslice.dataset_layouts:CaseFiles",
    "Connection": "glioslice.wire.connection:Connection",
    "GliosliceError": "glioslice.errors:GliosliceError",
    "LinkError": "glioslice.wire.link:LinkError",
    "Port": "glioslice.wire.transport:Port",
    "PortError": "glioslice.wire.transport:PortError",
    "Space": "glioslice.nifti:Space",
    "codecs": "glioslice.wire.codecs",
    "find_case": "glioslice.cases:find_case",
    "find_cases": "glioslice.cases:find_cases",
    "find_model": "glioslice.model_card:find_model",
    "find_warnings": "glioslice.sanity_checks:find_warnings",
    "memory_ports": "glioslice.wire.transport:pair",
    "messages": "glioslice.wire.messages",
    "open_port": "glioslice.wire.ports:open_port",
    "phantom_case": "glioslice.cases:phantom_case",
    "preprocessing": "glioslice.preprocessing",
    "read_case": "glioslice.cases:read_case",
    "region_dice": "glioslice.metrics:region_dice",
    "to_scheme": "glioslice.labels:to_scheme",
    "volumes_ml": "glioslice.metrics:volumes_ml",
    "write_mask": "glioslice.nifti:write_mask",
    "write_montage": "glioslice.montage:write_montage",
}


def lazy_exports(
    namespace: dict[str, Any], sources: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package whose names are imported on use (PEP 562).

    `namespace` is the package's globals(); `sources` says where each public name comes from:
    `module:name`, or a module.
    """

    def load(name: str) -> Any:
        if name not in sources:
            package = namespace["__name__"]
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = sources[name].partition(":")
        found = import_module(module)
        namespace[name] = getattr(found, attribute) if attribute else found
        return namespace[name]

    return load, lambda: sorted({*namespace, *sources})


__getattr__, __dir__ = lazy_exports(globals(), _SOURCES)
