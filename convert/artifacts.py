"""The files that a conversion leaves: products bound by a card, and others to compare them with.

OUT/card.json, <name>.safetensors, <name>-int8.tflite, ...    a model folder (`glioslice.model_card`)
OUT/report.json, report.svg                                   what the files are worth, and why
OUT/model.h, model.c, ...                                     what a target asked for (--target)
OUT/compare/<name>-fp32.tflite, ...                           never shipped
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

LIMIT = 60_000
"""Bytes; 60 KB means 60,000."""

PRODUCTS = ("int8", "fp16")
"""The precisions that may be shipped."""

PRECISIONS_OF = {"compact": ("int8",)}
"""What is made of a size if nothing else is asked for; of others, whatever may be a product."""

COMPARE, REPORT, PICTURE = "compare", "report.json", "report.svg"
NOTHING: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class File:
    """A packed TFLite file; a `product` is bound by the card and may be shipped."""

    name: str
    precision: str
    product: bool
    content: bytes

    @property
    def entry(self) -> dict[str, object]:
        """What a card says of the file."""
        digest = hashlib.sha256(self.content).hexdigest()
        return {"precision": self.precision, "bytes": len(self.content), "sha256": digest}


def chosen_precisions(asked: str | None, name: str, targets: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the products to make: those of `--precision`, or the usual ones of a size.

    Raises GliosliceError if one is unknown, or int8 is missing, which `targets` look at.
    """
    if asked is None:
        return PRECISIONS_OF.get(name, PRODUCTS)
    chosen = tuple(dict.fromkeys(part.strip() for part in asked.split(",") if part.strip()))
    unknown = [precision for precision in chosen if precision not in PRODUCTS]
    if unknown or not chosen:
        raise GliosliceError(
            f"--precision {asked}: a product is {' or '.join(PRODUCTS)}; other files are always "
            f"written to OUT/{COMPARE}/"
        )
    if targets and "int8" not in chosen:
        raise GliosliceError(
            f"--precision {asked} --target {','.join(targets)}: targets are those of the int8 "
            "file; add int8 to --precision or leave --target out"
        )
    return chosen


def packed(name: str, exported: Mapping[str, bytes], precisions: Sequence[str]) -> tuple[File, ...]:
    """Return the packed files of a network called `name`, the products first."""
    order = [*precisions, *(p for p in exported if p not in precisions)]
    return tuple(
        File(f"{name}-{precision}.tflite", precision, precision in precisions, pack(content))
        for precision, content in ((p, exported[p]) for p in order)
    )


def too_large(files: Sequence[File], limit: int = LIMIT) -> str:
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


def check_writable(out: Path) -> None:
    """Make the folder `out`; raises GliosliceError if nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise GliosliceError(
            f"{out}: cannot be written to ({error.strerror}); name another with --out"
        ) from None


def stage(folder: Path, card: Card, files: Sequence[File]) -> dict[str, Path]:
    """Write all files flat into `folder`, bound by a card, so that the engine runs them."""
    for file in files:
        write_bytes(folder / file.name, file.content)
    write_json(folder / CARD, card.content | {"files": {f.name: f.entry for f in files}})
    return {file.name: folder / file.name for file in files}


def publish(
    run: Path,
    out: Path,
    card: Card,
    files: Sequence[File],
    report: dict[str, Any],
    beside: Mapping[str, bytes] = NOTHING,
) -> None:
    """Write the model folder `out` from that of `run`, which may be the same.

    The card keeps all that it says and comes last: until it stands, no engine takes a new file.
    """
    checkpoint = f"{card.name}.safetensors"
    kept = {checkpoint: card.content["files"][checkpoint]}
    if out.resolve() == run.resolve():
        kept |= {n: e for n, e in card.content["files"].items() if _unchanged(out / n, e)}
    else:
        write_bytes(out / checkpoint, (run / checkpoint).read_bytes())
    write_files(out, files, report, beside)
    entries = kept | {file.name: file.entry for file in files if file.product}
    write_json(out / CARD, card.content | {"files": entries})


def write_files(
    out: Path,
    files: Sequence[File],
    report: dict[str, Any],
    beside: Mapping[str, bytes] = NOTHING,
) -> None:
    """Write the files, what was made `beside` them (by name) and their report, which comes last."""
    for file in files:
        write_bytes(out / file.name if file.product else out / COMPARE / file.name, file.content)
    for name, content in beside.items():
        write_bytes(out / name, content)
    write_json(out / REPORT, report)


def _unchanged(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.is_file() and sha256(path) == entry.get("sha256")
