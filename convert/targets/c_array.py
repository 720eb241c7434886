"""A TFLite file as C: `model.h` and `model.c`, for C11 and for C++11."""

import hashlib
from collections.abc import Sequence
from typing import Any

BYTES_A_LINE = 16

METHODS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "LSTM": "LSTM",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
"""Names in `tflite::MicroMutableOpResolver` that do not follow from the schema's."""


def c_header(
    name: str,
    content: bytes,
    ops: Sequence[str],
    arena: int,
    given: dict[str, Any],
    output: dict[str, Any],
) -> str:
    """Return `model.h`; `given` and `output` are details of tensors as LiteRT gives them."""
    lines = [
        f"/* {name}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}.",
        " * Research software, no medical device: not for diagnosis or treatment.",
        " *",
        " * The ops to register, with TFLite Micro:",
        " *   tflite::MicroMutableOpResolver<GLIOSLICE_OPS> resolver;",
        " *   #define REGISTER(op) resolver.Add##op();",
        " *   GLIOSLICE_EACH_OP(REGISTER)",
        " */",
        "#ifndef GLIOSLICE_MODEL_H",
        "#define GLIOSLICE_MODEL_H",
        "",
        f"#define GLIOSLICE_MODEL_BYTES {len(content)}",
        "/* To lie at a multiple of 16. Found with 8-byte pointers; with 4 a little less does. */",
        f"#define GLIOSLICE_ARENA_BYTES {arena}",
        f"#define GLIOSLICE_OPS {len(ops)}",
        f"#define GLIOSLICE_EACH_OP(X) {' '.join(f'X({method_of(op)})' for op in ops)}",
        "",
        "/* real value = scale * (value - zero point); shapes are row by row, channels last */",
        *_tensor("INPUT", given),
        *_tensor("OUTPUT", output),
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "extern const unsigned char glioslice_model[GLIOSLICE_MODEL_BYTES];",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def c_source(content: bytes) -> str:
    """Return `model.c`: constants are read as they lie in the array, so it is aligned."""
    rows = [
        "  " + "".join(f"{byte}," for byte in content[start : start + BYTES_A_LINE])
        for start in range(0, len(content), BYTES_A_LINE)
    ]
    head = ["#include <stdalign.h>", '#include "model.h"', ""]
    head += ["alignas(16) const unsigned char glioslice_model[GLIOSLICE_MODEL_BYTES] = {"]
    return "\n".join([*head, *rows, "};"]) + "\n"


def method_of(op: str) -> str:
    """Return how `tflite::MicroMutableOpResolver` calls an op, without its "Add"."""
    words = op.split("_")
    return METHODS.get(op) or "".join(w if w == "2D" else w.capitalize() for w in words)


def _tensor(prefix: str, details: dict[str, Any]) -> list[str]:
    scale, zero_point = details["quantization"]
    shape = ", ".join(str(int(size)) for size in details["shape"])
    lines = [f"#define GLIOSLICE_{prefix}_SHAPE {{{shape}}}"]
    if scale:
        lines.append(f"#define GLIOSLICE_{prefix}_SCALE {float(scale)!r}f")
        lines.append(f"#define GLIOSLICE_{prefix}_ZERO_POINT ({int(zero_point)})")
    return lines
