"""Arm Ethos-U55 with 128 multipliers: compile the file with Vela, Arm's compiler.

All figures are Vela's estimates for one configured system; no chip ran the file.
"""

import csv
import re
import subprocess
import sys
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from convert.targets import TargetResult, require_tool
from convert.tflite.reader import ops_of, read_model
from glioslice.errors import GliosliceError

TARGET = "ethos-u55-128"
SYSTEM, MEMORY = "Ethos_U55_High_End_Embedded", "Shared_Sram"
"""From Vela's own `Arm/vela.ini`: 500 MHz; tensors in SRAM, weights in flash."""

ON_NPU = "ethos-u"
"""The custom op that replaces everything that the NPU runs, in the file that Vela writes."""

TIMEOUT = 600
"""Seconds."""


def check(content: bytes, name: str) -> TargetResult:
    """Return what Vela reports for a file called `name`; `ok` if all of it runs on the NPU.

    Raises GliosliceError if the file is not a TFLite file, or ethos-u-vela is missing or fails.
    """
    ops = ops_of(read_model(content))
    require_tool("ethosu.vela", TARGET, "ethos-u-vela")
    compiled, summary, output = _compile(content, name)
    left = [op for op in ops_of(schema.ModelT.InitFromPackedBuf(compiled, 0)) if op.name != ON_NPU]
    kinds = Counter(op.name for op in left)
    macs = sum(op.macs for op in ops)
    report: dict[str, Any] = {
        "compiler": f"ethos-u-vela {metadata.version('ethos-u-vela')}",
        "estimated": True,
        "system": SYSTEM,
        "memory": MEMORY,
        "clock_hz": float(summary["core_clock"]),
        "ops": len(ops),
        "ops_on_npu": len(ops) - len(left),
        "macs": macs,
        "macs_on_npu": macs - sum(op.macs for op in left),
        "milliseconds": float(summary["inference_time"]) * 1000,
        "sram_bytes": round(float(summary["sram_memory_used"]) * 1024),
        "flash_bytes": round(float(summary["off_chip_flash_memory_used"]) * 1024),
        "left": [{"op": op, "count": n, "why": _why(op, output)} for op, n in kinds.items()],
    }
    problems = "; ".join(
        f"{n['count']} {n['op']} left on the CPU: {n['why']}" for n in report["left"]
    )
    files = {f"{name}-{TARGET}.tflite": compiled}
    return TargetResult(TARGET, not left, _rows(report), report, files, problems)


def _rows(report: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    ops, macs = report["ops"], report["macs"]
    share = report["macs_on_npu"] / macs if macs else 0.0
    system = f"{SYSTEM}, {MEMORY}, {report['clock_hz'] / 1e6:.0f} MHz"
    rows = [
        ("estimated by", f"{report['compiler']} for {system}; no chip ran it"),
        ("on the NPU", f"{report['ops_on_npu']} of {ops} ops, {share:.1%} of {macs:,} MACs"),
        ("estimated time", f"{report['milliseconds']:.2f} ms"),
        ("estimated SRAM", f"{report['sram_bytes']:,} bytes"),
        ("estimated flash", f"{report['flash_bytes']:,} bytes"),
    ]
    rows += [(f"on the CPU: {n['count']} {n['op']}", n["why"]) for n in report["left"]]
    return tuple(rows)


def _compile(content: bytes, name: str) -> tuple[bytes, dict[str, str], str]:
    """Return the compiled file, Vela's summary by column, and Vela's output."""
    with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:
        source = Path(folder, f"{name}.tflite")
        source.write_bytes(content)
        command = [sys.executable, "-m", "ethosu.vela", "--accelerator-config", TARGET]
        command += ["--config", "Arm/vela.ini", "--system-config", SYSTEM, "--memory-mode", MEMORY]
        command += ["--output-dir", folder, str(source)]
        try:
            finished = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise GliosliceError(f"{TARGET}: Vela did not finish within {TIMEOUT} s") from None
        output = finished.stdout + finished.stderr
        out, summaries = Path(folder, f"{name}_vela.tflite"), sorted(Path(folder).glob("*.csv"))
        if finished.returncode or not out.is_file() or not summaries:
            last = " ".join(output.split())[-300:]
            raise GliosliceError(f"{TARGET}: Vela could not compile the file: {last}")
        with summaries[0].open(newline="") as file:
            [summary] = csv.DictReader(file)
        return out.read_bytes(), summary, output


def _why(op: str, output: str) -> str:
    """Return the reason that Vela gave for an op of this kind, on one line."""
    found = re.search(rf"operator: {op}\b.*\n *-? *Reason: (.+(?:\n(?! ?\n).+)?)", output)
    return "no reason given" if found is None else " ".join(found[1].split())
