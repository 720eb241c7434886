"""How the window of a convolution or a pool moves over an image, as TFLite's padding.h has it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Axis:
    """How a window moves along an axis: `size` outputs, and what each of its taps adds to them.

    `taps` are (tap, pixels read, outputs written), two slices of equal length. What a tap would
    read outside the image is left out: there is no padding to be added and none to be computed.
    """

    size: int
    taps: tuple[tuple[int, slice, slice], ...]


def axis_of(length: int, taps: int, stride: int, dilation: int, same: bool) -> Axis:
    """Return how `taps` taps move over `length` pixels: output i reads i stride + tap dilation - p.

    SAME has ceil(length / stride) outputs, VALID as many as need no padding (0 or less if there are
    none); p is half of the padding, and where it is odd, the smaller half.
    """
    reach = (taps - 1) * dilation + 1
    size = -(-length // stride) if same else (length + stride - reach) // stride
    before = max((size - 1) * stride + reach - length, 0) // 2
    inside = []
    for tap in range(taps):
        start = tap * dilation - before
        first, stop = max(-(start // stride), 0), min(-((start - length) // stride), size)
        if first < stop:
            read = slice(start + first * stride, start + (stop - 1) * stride + 1, stride)
            inside.append((tap, read, slice(first, stop)))
    return Axis(size, tuple(inside))


def windows(rows: Axis, columns: Axis) -> Iterator[tuple[int, int, Any, Any]]:
    """Yield each tap's row and column, and where it reads and writes in (images, rows, columns)."""
    images = slice(None)
    for row, read_y, write_y in rows.taps:
        for column, read_x, write_x in columns.taps:
            yield row, column, (images, read_y, read_x), (images, write_y, write_x)
