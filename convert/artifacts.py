"""The files that a conversion writes.

OUT/card.json, <name>.safetensors, <name>-int8.tflite     a model folder (`glioslice.model_card`)
OUT/report.json, report.svg                               scores, sizes and errors by layer
OUT/model.h, model.c, ...                                 made for a target (--target)
OUT/compare/<name>-fp32.tflite, ...                       for comparison, never shipped
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from convert.pack import pack
from glioslice.errors import GliosliceError
from glioslice.files import sha256, write_bytes, write_json
from glioslice.model_card import CARD, Card

SIZE_LIMIT = 60_000
"""Bytes of a product; 60 KB means 60,000."""

PRODUCTS = ("int8", "fp16")
"""The precisions that may be shipped."""

DEFAULT_PRECISIONS = {"compact": ("int8",)}
"""The products of a size by default; other sizes get all of PRODUCTS."""

COMPARE, REPORT, PICTURE = "compare", "report.json", "report.svg"
NO_EXTRAS: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class ModelFile:
    """A packed TFLite file; a `product` is listed in the card and may be shipped."""

    name: str
    precision: str
    product: bool
    content: bytes

    @property
    def entry(self) -> dict[str, object]:
        """The file's entry in a card."""
        digest = hashlib.sha256(self.content).hexdigest()
        return {"precision": self.precision, "bytes": len(self.content), "sha256": digest}


def choose_precisions(
    option: str | None, name: str, targets: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the products to make: those of `--precision`, or the default ones of a size.

    Raises GliosliceError if one is unknown, or if int8 is missing although `targets` need it.
    """
    if option is None:
        return DEFAULT_PRECISIONS.get(name, PRODUCTS)
    chosen = tuple(dict.fromkeys(part.strip() for part in option.split(",") if part.strip()))
    unknown = [precision for precision in chosen if precision not in PRODUCTS]
    if unknown or not chosen:
        raise GliosliceError(
            f"--precision {option}: a product is {' or '.join(PRODUCTS)}; other files are always "
            f"written to OUT/{COMPARE}/"
        )
    if targets and "int8" not in chosen:
        raise GliosliceError(
            f"--precision {option} --target {','.join(targets)}: targets check the int8 file; "
            "add int8 to --precision or leave --target out"
        )
    return chosen


def pack_files(
    name: str, contents: Mapping[str, bytes], precisions: Sequence[str]
) -> tuple[ModelFile, ...]:
    """Return the packed files of a network called `name`, the products first.

    `contents` holds the unpacked files by precision; `precisions` are those that become products.
    """
    order = [*precisions, *(p for p in contents if p not in precisions)]
    return tuple(
        ModelFile(f"{name}-{p}.tflite", p, p in precisions, pack(contents[p])) for p in order
    )


def describe_excess(files: Sequence[ModelFile], limit: int = SIZE_LIMIT) -> str:
    """Return which product has more than `limit` bytes and what to do about it, "" if none has."""
    for file in files:
        size = len(file.content)
        if file.product and size > limit:
            smaller = [
                f"its {f.precision} file has {len(f.content):,} (--precision {f.precision})"
                for f in files
                if f.precision in PRODUCTS and len(f.content) <= limit
            ]
            return (
                f"{file.name} would have {size:,} bytes, {size - limit:,} more than the {limit:,} "
                f"of a product; {', '.join(smaller) or 'use fewer channels'}, or allow more with "
                "--max-bytes"
            )
    return ""


def make_output_folder(out: Path) -> None:
    """Make the folder `out`; raises GliosliceError if nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise GliosliceError(
            f"{out}: cannot be written to ({error.strerror}); choose another folder with --out"
        ) from None


def stage_files(folder: Path, card: Card, files: Sequence[ModelFile]) -> dict[str, Path]:
    """Write all files into `folder` with a card, so that the engine accepts them."""
    for file in files:
        write_bytes(folder / file.name, file.content)
    write_json(folder / CARD, card.content | {"files": {f.name: f.entry for f in files}})
    return {file.name: folder / file.name for file in files}


def publish(
    source: Path,
    out: Path,
    card: Card,
    files: Sequence[ModelFile],
    report: dict[str, Any],
    extras: Mapping[str, bytes] = NO_EXTRAS,
) -> None:
    """Write the model folder `out` from the model folder `source`, which may be the same.

    The card keeps everything but its list of files. It is written last: before that, no engine
    accepts a new file.
    """
    checkpoint = f"{card.name}.safetensors"
    kept = {checkpoint: card.content["files"][checkpoint]}
    if out.resolve() == source.resolve():
        kept |= {n: e for n, e in card.content["files"].items() if _unchanged(out / n, e)}
    else:
        write_bytes(out / checkpoint, (source / checkpoint).read_bytes())
    write_files(out, files, report, extras)
    entries = kept | {file.name: file.entry for file in files if file.product}
    write_json(out / CARD, card.content | {"files": entries})


def write_files(
    out: Path,
    files: Sequence[ModelFile],
    report: dict[str, Any],
    extras: Mapping[str, bytes] = NO_EXTRAS,
) -> None:
    """Write the TFLite files, `extras` (content by name) and, last, the report."""
    for file in files:
        write_bytes(out / file.name if file.product else out / COMPARE / file.name, file.content)
    for name, content in extras.items():
        write_bytes(out / name, content)
    write_json(out / REPORT, report)


def _unchanged(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.is_file() and sha256(path) == entry.get("sha256")
