"""One number over all masks of a run."""

import hashlib


class MaskDigest:
    """SHA-256 over all masks of a run, in order of their index, whatever order they came in.

    Of each: the index as u32 little-endian, then the SHA-256 of its labels, one byte a pixel,
    (X, Y) with Y running fastest.
    """

    def __init__(self) -> None:
        self._masks: dict[int, bytes] = {}

    def add(self, index: int, labels: bytes) -> None:
        """Take in the mask of a slice; the same index again replaces it."""
        self._masks[index] = hashlib.sha256(labels).digest()

    def hexdigest(self) -> str:
        """Return the digest of what has been added, as End carries it."""
        total = hashlib.sha256()
        for index in sorted(self._masks):
            total.update(index.to_bytes(4, "little") + self._masks[index])
        return total.hexdigest()
