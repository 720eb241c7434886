"""Write docs/mask-vectors.json: what another implementation of the mask codec is tested against.

    python tools/mask_vectors.py

Masks stand there as runs of equal labels (codec 1 of docs/wire.md), bytes in hexadecimal. They are
a phantom's and made-up ones, no patient's.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.folds import ROOT
from glioslice import cli
from glioslice.files import sha256, write_json
from glioslice.phantom.head import make_phantom
from glioslice.preprocessing import brain_of, crop_of, cut
from glioslice.wire.codecs import RUNS, encode_mask
from glioslice.wire.context_coder import encode
from glioslice.wire.context_model import PATH
from glioslice.wire.range_coder import RangeEncoder

FILE = ROOT / "docs" / "mask-vectors.json"
PHANTOM_SLICES = 5
FIRST_SLICES = 2

Mask = NDArray[np.uint8]
Vector = tuple[str, Mask, Mask | None]


def main() -> None:
    """Write them."""
    example = "python tools/mask_vectors.py"
    parser = cli.parser("Write the test vectors of the mask codec.", example)
    cli.run(work, parser.parse_args())


def work(_arguments: argparse.Namespace) -> None:
    """Write the file for the tables that are shipped."""
    write_json(FILE, vectors())


def vectors() -> dict[str, Any]:
    """Return the file's content."""
    return {
        "tables": sha256(PATH),
        "range_coder": range_coder(),
        "masks": [
            {
                "name": name,
                "shape": list(mask.shape),
                "previous": None if previous is None else encode_mask(RUNS, previous).hex(),
                "mask": encode_mask(RUNS, mask).hex(),
                "content": encode(mask, previous).hex(),
            }
            for name, mask, previous in (*made_up(), *phantom())
        ],
    }


def range_coder() -> list[dict[str, Any]]:
    """Return lists of decisions, [bit, chance], and numbers, [value, count], with their bytes.

    Halves fill whole bytes; the rare decision makes the interval end on both sides of a carry.
    """
    halves = [(int(bit), 1 << 14) for bit in "0111000011111111000000011"]
    rare = [(0, 32767)] * 3 + [(1, 1), (0, 1), (1, 32767), (0, 16384)] * 3
    numbers = [(6, 7), (0, 1), (30719, 30720), (0, 30720), (1 << 23, 1 << 24)]
    carry = [(0, 16384)] * 30 + [(0, 1)] + [(1, 3)] * 2 + [(0, 12345)] * 9
    lists: list[tuple[str, list[tuple[int, int]]]] = [
        ("decisions", halves),
        ("decisions", rare),
        ("decisions", carry),
        ("numbers", numbers),
        ("decisions", []),
    ]
    made = []
    for kind, items in lists:
        coder = RangeEncoder()
        for first, second in items:
            if kind == "decisions":
                coder.bits([first], [second])
            else:
                coder.number(first, second)
        made.append({kind: [list(item) for item in items], "bytes": coder.finish().hex()})
    return made


def made_up() -> Iterator[Vector]:
    """Yield small masks that reach every part of the codec."""
    empty = np.zeros((12, 20), np.uint8)
    yield "empty", empty, None
    yield "empty after empty", empty, empty
    pixel = empty.copy()
    pixel[11, 19] = 3
    yield "one pixel, alone", pixel, None
    yield "one pixel after an empty slice", pixel, empty
    yield "the same again", pixel, pixel
    box = empty.copy()
    box[2:10, 3:15], box[4:8, 5:12], box[5:7, 6:9] = 2, 1, 3
    yield "a box, alone", box, None
    yield "a box moved", np.roll(box, (1, -2), (0, 1)), box
    yield "a box vanishes but for a pixel", pixel, box
    holes = box.copy()
    holes[5, 13], holes[9, 4] = 0, 0
    holes[0, 0], holes[0, 17] = 1, 2
    yield "holes and specks", holes, box
    yield "full, alone", np.full((12, 20), 3, np.uint8), None
    chequered = np.indices((12, 20)).sum(axis=0).astype(np.uint8) % 2 * 3
    yield "two bits a pixel", chequered, box
    yield "two bits a pixel, odd size", chequered[:5, :7].copy(), None


def phantom() -> Iterator[Vector]:
    """Yield slices of a phantom's tumour: its first ones, and some about its middle."""
    head = make_phantom(0)
    masks = cut(head.labels, crop_of(brain_of(head.images)))
    held = np.flatnonzero(masks.any(axis=(1, 2)))
    middle = int(held[len(held) // 2])
    chosen = [*range(held[0], held[0] + FIRST_SLICES), *range(middle, middle + PHANTOM_SLICES)]
    for place, index in enumerate(chosen):
        alone = place in (0, FIRST_SLICES)
        named = f"phantom, slice {index}" + (", alone" if alone else "")
        yield named, masks[index], None if alone else masks[index - 1]


if __name__ == "__main__":
    main()
