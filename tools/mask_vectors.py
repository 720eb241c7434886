"""Write docs/mask-vectors.json: test vectors for other implementations of the mask codec.

    python tools/mask_vectors.py

Masks are runs of equal labels (codec 1 of docs/wire.md), bytes are hexadecimal. The masks are those
of a phantom and synthetic ones, not those of patients.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import ROOT
from glioslice import cli
from glioslice.files import sha256, write_json
from glioslice.phantom.head import make_phantom
from glioslice.preprocessing import brain_mask, extract_slices, find_crop
from glioslice.wire.codecs import RUNS, encode_mask
from glioslice.wire.context_coder import encode_change
from glioslice.wire.context_model import PATH, MaskArray
from glioslice.wire.range_coder import RangeEncoder

FILE = ROOT / "docs" / "mask-vectors.json"
PHANTOM_SLICES = 5
FIRST_SLICES = 2

Vector = tuple[str, MaskArray, MaskArray | None]


def vectors() -> dict[str, Any]:
    """Return the content of the file."""
    return {
        "tables": sha256(PATH),
        "range_coder": range_coder(),
        "masks": [
            {
                "name": name,
                "shape": list(mask.shape),
                "previous": None if previous is None else encode_mask(RUNS, previous).hex(),
                "mask": encode_mask(RUNS, mask).hex(),
                "content": encode_change(mask, previous).hex(),
            }
            for name, mask, previous in (*synthetic_masks(), *phantom_masks())
        ],
    }


def range_coder() -> list[dict[str, Any]]:
    """Return lists of decisions, [bit, probability], and numbers, [value, count], with their bytes.

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


def synthetic_masks() -> Iterator[Vector]:
    """Yield small masks that exercise every part of the codec."""
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


def phantom_masks() -> Iterator[Vector]:
    """Yield slices of a phantom's tumour: its first ones, and some around its middle."""
    head = make_phantom(0)
    masks = extract_slices(head.labels, find_crop(brain_mask(head.images)))
    labelled = np.flatnonzero(masks.any(axis=(1, 2)))
    middle = int(labelled[len(labelled) // 2])
    chosen = [
        *range(labelled[0], labelled[0] + FIRST_SLICES),
        *range(middle, middle + PHANTOM_SLICES),
    ]
    for place, index in enumerate(chosen):
        alone = place in (0, FIRST_SLICES)
        name = f"phantom, slice {index}" + (", alone" if alone else "")
        yield name, masks[index], None if alone else masks[index - 1]


def write_vectors(_arguments: argparse.Namespace) -> None:
    """Write the file for the present tables of the codec."""
    write_json(FILE, vectors())


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    example = "python tools/mask_vectors.py"
    parser = cli.parser("Write the test vectors of the mask codec.", example)
    cli.run(write_vectors, parser.parse_args(argv))


if __name__ == "__main__":
    main()
