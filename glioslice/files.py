"""Files written atomically, JSON, checksums, and what DICOM files are recognised by."""

import hashlib
import json
import os
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glioslice.errors import GliosliceError

_UMASK = threading.Lock()

NOTICE = "Research software, not a medical device."
"""What every file with images or masks says of itself, and every command."""

FOLDER_PREFIX = ".prepare-"
"""How the name of a folder begins that is renamed when it is complete."""

DICOM_MAGIC, DICOM_MAGIC_AT = b"DICM", 128
"""What a DICOM file has after its preamble, whatever its name (PS3.10)."""

UNFINISHED = ".*-*-*.*", f"{FOLDER_PREFIX}*"
"""Patterns of the names of files and folders that are being written."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, because libraries choose a format by it, is random, because
    machines of a cluster may write the same file to one disk, and is short, so that any name that
    fits can be written. If the block fails, the temporary file is removed and `path` is left as it
    was. Raises GliosliceError for a folder, a device or a pipe, which a file would replace: even
    /dev/null.
    """
    _check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}-{path.name[-16:]}")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())  # some libraries set permissions of their own
        temporary.replace(path)
    except OSError as error:  # that of a full disk names no file, others the temporary one
        if error.filename in (None, str(temporary), os.fspath(path)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_file(path: Path) -> None:
    """Check that a file `path` can be written; raises GliosliceError. Nothing is created."""
    _check_replaceable(path)
    check_folder(path.parent)


def _check_replaceable(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise GliosliceError(f"{path}: is a folder, a device or a pipe; name a file")


def check_folder(folder: Path) -> None:
    """Check that files can be created in `folder`, or in the parent where it will be made.

    Raises GliosliceError otherwise. Nothing is created.
    """
    above = folder.absolute(), *folder.absolute().parents
    existing = next(p for p in above if p.exists() or p.is_symlink())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise GliosliceError(
            f"{existing}: no file can be written here ({error.strerror}); name another folder"
        ) from None


def _umask() -> int:
    """Return the process's umask: a mask is a patient's data, so the user decides who reads it."""
    with _UMASK:  # two threads at once would leave the process with the mask of the reading
        current = os.umask(0o077)
        os.umask(current)
    return current


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically; of a file name that is not UTF-8 the odd bytes escaped."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically, as indented JSON.

    A file name that is not UTF-8 is written with the escapes by which JSON readers restore it.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`.

    Raises GliosliceError if the file is missing or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise GliosliceError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise GliosliceError(f"{path}: not valid JSON ({error}); write it again") from None
    if not isinstance(value, dict):
        raise GliosliceError(f"{path}: expected a JSON object; write it again")
    return value


def is_dicom(path: Path) -> bool:
    """Return whether a file says that it is DICOM; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(DICOM_MAGIC_AT + len(DICOM_MAGIC))[DICOM_MAGIC_AT:] == DICOM_MAGIC
    except OSError:
        return False


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
