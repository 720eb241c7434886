"""Keep figures in CSV files, write them into pages of docs/, and name the processor.

Figures of a page stand between two marks with their name. A processor is named by its family:
model names are less informative.
"""

import csv
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from glioslice.errors import GliosliceError
from glioslice.files import atomic_path, write_bytes

CPUINFO = Path("/proc/cpuinfo")
FAMILIES = {"x86_64": "x86-64", "AMD64": "x86-64", "arm64": "aarch64"}
EXTENSIONS = {
    "avx512_vnni": "AVX-512 with VNNI",
    "avx_vnni": "AVX2 with VNNI",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "NEON with int8 matrices",
    "asimddp": "NEON with dot products",
    "asimd": "NEON",
}
"""Extensions that int8 kernels are chosen by, the best first, by their names in Linux."""


def processor(cpuinfo: Path = CPUINFO) -> str:
    """Return family, vector extension and cores, such as x86-64, AVX-512 with VNNI, 2 cores."""
    family = FAMILIES.get(platform.machine(), platform.machine())
    try:
        flags = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        flags = set()
    extension = [name for flag, name in EXTENSIONS.items() if flag in flags][:1]
    return ", ".join([family, *extension, f"{os.cpu_count()} cores"])


def fill(page: Path, parts: Mapping[str, str]) -> None:
    """Replace the text between `<!-- figures: NAME -->` and `<!-- end of NAME -->` of the page.

    Raises GliosliceError if the page lacks a mark; the page is then unchanged.
    """
    text = page.read_text(encoding="utf-8")
    for name, content in parts.items():
        begin, end = f"<!-- figures: {name} -->", f"<!-- end of {name} -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            raise GliosliceError(f"{page}: the marks {begin} and {end} are missing")
        text = f"{before}{begin}\n{content}\n{end}{after}"
    write_bytes(page, text.encode())


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; an empty list if nothing was measured, so that it is missing."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
