"""Settings of the C library's allocator, for many small slices and a few large volumes.

The defaults of glibc suit neither. It returns the end of its heap to the system after each slice
and requests it again page by page, which doubled the decoding time on a board. And it raises its
threshold for mapped blocks up to 32 MB, so that a long-running host kept the memory of earlier
cases.
"""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, from malloc.h."""

TRIM_BYTES = 64 << 20
"""Free bytes at the end of the heap above which they are returned to the system."""

MMAP_BYTES = 1 << 20
"""Blocks of at least this size are mapped on their own, and unmapped when freed."""


def configure_malloc() -> None:
    """Keep small blocks for the next slice, and return large blocks when they are freed.

    Does nothing where the C library has no `mallopt`.
    """
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
