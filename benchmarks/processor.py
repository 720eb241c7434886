"""The processor that figures were measured on, by family: a model's name says less."""

import os
import platform
from pathlib import Path

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
"""What int8 kernels are chosen by, the best first, as Linux calls it."""


def processor(cpuinfo: Path = CPUINFO) -> str:
    """Return family, vector extension and cores, such as x86-64, AVX-512 with VNNI, 2 cores."""
    family = FAMILIES.get(platform.machine(), platform.machine())
    try:
        words = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        words = set()
    extension = [said for word, said in EXTENSIONS.items() if word in words][:1]
    return ", ".join([family, *extension, f"{os.cpu_count()} cores"])
