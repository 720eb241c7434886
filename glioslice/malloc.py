"""How the C library hands out memory: what every slice needs stays, what a volume needs goes back.

By itself glibc does neither. It gives the end of its heap back after each slice and takes it again,
page by page, which made a board's decoding twice as slow; and it soon keeps blocks of up to 32 MB,
which left a desk with those of the case before.
"""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""From malloc.h: free bytes at the heap's end, and of a block that is mapped on its own."""

KEPT = 64 << 20
LARGE = 1 << 20


def settle_memory() -> None:
    """Let blocks below LARGE be kept for the next slice, and larger ones return when freed.

    Another C library than glibc has its own ways, and is left to them.
    """
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
