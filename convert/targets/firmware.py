"""Microcontrollers without a runtime: tables for the network of device/firmware.

    python convert/targets/firmware.py models/compact/compact-int8.tflite --out build/firmware

writes network_tables.h and network_tables.c for the C files of device/firmware/net: the weights,
laid out for plain C, for the DSP extension and for MVE, TFLite's fixed-point multipliers, and the
order of rows and their place in memory for each form that fits (`convert.targets.firmware_plan`).
It also writes model.h: the model's part of the whole firmware's hello, from the card.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.targets import TargetResult
from convert.targets.firmware_layers import (
    LANES,
    FirmwareLayer,
    Weights,
    describe,
    read_layers,
)
from convert.targets.firmware_plan import Form, Plan, make_plan, strip_of
from convert.tflite.reader import read_model
from device.confidence import FRACTION_BITS, STEPS_PER_LOGIT
from device.engine import Engine
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.model_card import CARD
from glioslice.wire.hello import check_model_name
from glioslice.wire.messages import WIRE_MODALITIES

HEADER, SOURCE, MODEL = "network_tables.h", "network_tables.c", "model.h"
MAX_RAM = 192 * 1024
"""Bytes of RAM that the network may take: a board of 256 KB also has a wire and a stack."""

FORMS: tuple[Form, ...] = ("fast", "small")

VECTOR = 16
"""Values of an MVE register."""

KINDS = {
    "input": "NETWORK_READ",
    "convolution": "NETWORK_CONVOLVE",
    "pool": "NETWORK_POOL",
    "resize": "NETWORK_RESIZE",
    "add": "NETWORK_ADD",
}

NOTICE = """\
 * The weights are for research use: those of glioslice's models were learnt from BraTS data, whose
 * terms ask for non-commercial research. Research software, not a medical device: not for diagnosis
 * or treatment."""


def check(content: bytes, name: str) -> TargetResult:
    """Return the tables of a file called `name`; `ok` if the kernels compute it in 192 KB of RAM.

    Raises GliosliceError if the file is not a TFLite file.
    """
    model = read_model(content)
    try:
        layers = read_layers(model)
        plans = {form: make_plan(layers, form) for form in FORMS}
    except GliosliceError as error:
        why = str(error)
        return TargetResult("firmware", False, (("refused", why),), {"refused": why}, {}, why)
    fitting = {form: plan for form, plan in plans.items() if plan.arena <= MAX_RAM}
    macs = {form: layer_macs(plan.layers) for form, plan in plans.items()}
    rows = [("layers", describe(layers))]
    for form, plan in plans.items():
        verdict = "" if form in fitting else f", more than {MAX_RAM:,}: left out"
        rows.append((form, f"{plan.arena:,} bytes of RAM, {macs[form]:,} MACs{verdict}"))
    report: dict[str, Any] = {
        "layers": len(layers),
        "forms": {
            form: {"arena_bytes": plan.arena, "macs": macs[form], "fits": form in fitting}
            for form, plan in plans.items()
        },
    }
    if not fitting:
        smallest = min(plan.arena for plan in plans.values())
        problem = f"it needs {smallest:,} bytes of RAM, more than {MAX_RAM:,}"
        return TargetResult("firmware", False, tuple(rows), report, {}, problem)
    digest = hashlib.sha256(content)
    files = {
        HEADER: tables_header(f"{name}.tflite", digest.hexdigest(), layers, plans, fitting),
        SOURCE: tables_source(f"{name}.tflite", digest.digest(), layers, fitting),
    }
    encoded = {path: text.encode() for path, text in files.items()}
    return TargetResult("firmware", True, tuple(rows), report, encoded)


def layer_macs(layers: Sequence[FirmwareLayer]) -> int:
    """Return the multiply-accumulate operations of a slice."""
    weighted = [layer for layer in layers if layer.weights is not None]
    return sum(
        layer.rows * layer.columns * layer.weights.values.size
        for layer in weighted
        if layer.weights
    )


def tables_header(
    name: str,
    sha256: str,
    layers: Sequence[FirmwareLayer],
    plans: dict[Form, Plan],
    fitting: dict[Form, Plan],
) -> str:
    """Return network_tables.h: all sizes."""
    first, last = layers[0], layers[-1]
    lines = [
        f"/* Made from {name}, sha256 {sha256}, by convert/targets/firmware.py.",
        NOTICE + " */",
        "#ifndef NETWORK_TABLES_H",
        "#define NETWORK_TABLES_H",
        "",
        "enum {",
        f"    NETWORK_ROWS = {first.rows},",
        f"    NETWORK_COLUMNS = {first.columns},",
        f"    NETWORK_CHANNELS = {first.channels},",
        f"    NETWORK_REGIONS = {last.channels},",
        f"    NETWORK_ZERO_POINT = {last.zero_point}, /* of the logits */",
        f"    NETWORK_INPUT_ZERO_POINT = {first.zero_point},",
        f"    NETWORK_LANES = {_lanes(layers)}",
        "};",
        "",
        "#ifndef NETWORK_SMALL",
        "#define NETWORK_SMALL 0",
        "#endif",
        "",
    ]
    for condition, form in (("#if NETWORK_SMALL", "small"), ("#else", "fast")):
        lines.append(condition)
        plan = fitting.get(form)  # type: ignore[call-overload]
        if plan is None:
            other = "-DNETWORK_SMALL=1" if form == "fast" else "-DNETWORK_SMALL=0"
            arena = plans[form].arena  # type: ignore[index]
            lines.append(f'#error "this form needs {arena} bytes of RAM: compile with {other}"')
            continue
        lines += [
            "enum {",
            *(
                [f"    NETWORK_PASSES_OVERLAP = {int(plan.passes_overlap)},"]
                if form == "small"
                else []
            ),
            f"    NETWORK_LAYER_COUNT = {len(plan.layers)},",
            f"    NETWORK_STEP_COUNT = {len(plan.steps)},",
            f"    NETWORK_ARENA = {plan.arena}",
            "};",
        ]
    return "\n".join([*lines, "#endif", "", "#endif"]) + "\n"


def tables_source(
    name: str, sha256: bytes, layers: Sequence[FirmwareLayer], plans: dict[Form, Plan]
) -> str:
    """Return network_tables.c: weights, constants, layers and steps."""
    lines = [f"/* Made from {name} by convert/targets/firmware.py.", NOTICE + " */"]
    lines += ['#include "layers.h"', '#include "network.h"', ""]
    lines += [f"const unsigned char network_sha256[32] = {{{_numbers(sha256)}}};", ""]
    lines.append("#if NETWORK_KERNELS == NETWORK_PLAIN")
    for number, weights in _weighted(layers):
        lines += _array("int8_t", f"weights_{number}", plain_values(weights).ravel())
        lines += _array("int32_t", f"constants_{number}", plain_constants(weights).ravel())
    lines.append("#elif NETWORK_KERNELS == NETWORK_DSP")
    for number, weights in _weighted(layers):
        lines += _array("int32_t", f"constants_{number}", dsp_constants(weights))
        lines.append(f"#define weights_{number} 0")
    lines.append("#else")
    for number, weights in _weighted(layers):
        lines += _array("int8_t", f"weights_{number}", mve_values(weights).ravel())
        lines += _array("int32_t", f"constants_{number}", mve_constants(weights).ravel())
    lines += ["#endif", ""]
    for number, layer in enumerate(layers):
        if layer.sums:
            sums = [(r.multiplier, r.offset, r.shift) for r in layer.sums]
            lines += _array("int32_t", f"constants_{number}", np.array(sums).ravel())
    for form in FORMS:
        if form in plans:
            lines.append("#if NETWORK_SMALL" if form == "small" else "#if !NETWORK_SMALL")
            lines += _plan_lines(plans[form])
            lines += ["#endif", ""]
    return "\n".join(lines)


def plain_values(weights: Weights) -> NDArray[np.int8]:
    """Return (channels, window) of a convolution, channels and input channels padded to groups."""
    outputs, columns, rows, inputs = weights.values.shape
    padded = np.zeros((_up(outputs, LANES), columns, rows, _up(inputs, LANES)), np.int8)
    padded[:outputs, ..., :inputs] = weights.values
    return padded.reshape(len(padded), -1)


def plain_constants(weights: Weights) -> NDArray[np.int64]:
    """Return bias, multiplier, offset and shift (channels, 4); padding gets the zero point."""
    found = np.zeros((_up(len(weights.biases), LANES), 4), np.int64)
    found[:, 2] = weights.zero_point
    for row, bias, by in zip(found, weights.biases, weights.rescalings, strict=False):
        row[:] = bias, by.multiplier, by.offset, by.shift
    return found


def dsp_constants(weights: Weights) -> NDArray[np.int64]:
    """Return the words that the DSP kernel reads in turn, for each pair of channels.

    Two biases; for each four values of a window, values 0 and 2, then 1 and 3 of the first channel,
    and the same of the second; multiplier, offset and shift of both. Biases and weights are
    doubled: SMMLAR divides by 2^32, where TFLite divides by 2^31.
    """
    doubled = plain_values(weights).astype(np.int64) * 2
    quads = doubled.reshape(len(doubled), -1, 4)
    low, high = quads[..., :2] & 0xFFFF, quads[..., 2:]
    words = low + high * 65536  # (channels, quads, 2)
    constants = plain_constants(weights)
    pairs = []
    for first in range(0, len(doubled), 2):
        biases, rescalings = constants[first : first + 2, 0] * 2, constants[first : first + 2, 1:]
        both = np.concatenate([words[first], words[first + 1]], axis=1)
        pairs.append(np.concatenate([biases, both.ravel(), rescalings.ravel()]))
    return np.concatenate(pairs)


def mve_values(weights: Weights) -> NDArray[np.int8]:
    """Return (channels, window), windows padded with zeros to whole vectors."""
    values = plain_values(weights)
    return np.pad(values, ((0, 0), (0, _up(values.shape[1], VECTOR) - values.shape[1])))


def mve_constants(weights: Weights) -> NDArray[np.int64]:
    """Return biases, multipliers, offsets and negative shifts of each group of four channels."""
    constants = plain_constants(weights)
    constants[:, 3] *= -1
    return constants.reshape(-1, LANES, 4).transpose(0, 2, 1)


def _plan_lines(plan: Plan) -> Iterator[str]:
    mve = "NETWORK_KERNELS == NETWORK_MVE"
    yield "const NetworkLayer network_layers[NETWORK_LAYER_COUNT] = {"
    for layer, number, ring in zip(plan.layers, plan.repeated, plan.rings, strict=True):
        sources = [*layer.sources, 0, 0][:2]
        strip, length, signed, weights, constants, padding = 0, "0", 0, "0", "0", 0
        if layer.weights is not None:
            values = plain_values(layer.weights).shape[1]
            strip, signed = strip_of(layer), int(layer.weights.signed)
            length = f"{mve} ? {_up(values, VECTOR)} : {values}"
            weights, padding = f"weights_{number}", plan.layers[sources[0]].zero_point
        if layer.weights is not None or layer.sums:
            constants = f"constants_{number}"
        yield (
            f"    {{{KINDS[layer.kind]}, {{{sources[0]}, {sources[1]}}}, {layer.window}, "
            f"{layer.stride}, {layer.before}, {strip}, {signed}, {padding}, {layer.rows}, "
            f"{layer.columns}, {layer.stored}, {ring.depth}, {length}, {ring.offset}, "
            f"{weights}, {constants}}}, /* {number}: {layer.name} */"
        )
    yield "};"
    yield from _array("uint8_t", "network_steps", np.array(plan.steps), "const")


def _weighted(layers: Sequence[FirmwareLayer]) -> Iterator[tuple[int, Weights]]:
    for number, layer in enumerate(layers):
        if layer.weights is not None:
            yield number, layer.weights


def _array(
    kind: str, name: str, values: NDArray[Any], storage: str = "static const"
) -> Iterator[str]:
    yield f"{storage} {kind} {name}[{values.size}] = {{"
    numbers = [int(value) for value in values]
    for start in range(0, len(numbers), 16):
        yield _numbers(numbers[start : start + 16]) + ","
    yield "};"


def _numbers(values: Sequence[int] | bytes) -> str:
    """Return numbers for C; the least int32 has no literal of its own."""
    return ",".join("-2147483647-1" if n == -(1 << 31) else str(n) for n in values)


def _lanes(layers: Sequence[FirmwareLayer]) -> int:
    """Return how many values of windows a strip has at most."""
    most = 0
    for layer in layers:
        if layer.weights is not None:
            column = plain_values(layer.weights).shape[1] // layer.window
            most = max(most, ((strip_of(layer) - 1) * layer.stride + layer.window) * column)
    return most


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def model_header(engine: Engine) -> str:
    """Return model.h; raises GliosliceError for a model that BoardHello cannot describe."""
    card, scale = engine.card, engine.input.scale
    if engine.input.dtype != np.int8 or engine.output.dtype != np.int8:
        raise GliosliceError(f"{card.name}: not an int8 network, which the firmware needs")
    check_model_name(card.name, CARD)
    if not re.fullmatch(r"[\w.+-]+", card.name):
        raise GliosliceError(
            f"{CARD}: the model's name {card.name!r}: use letters, digits, _ . + and -"
        )
    codes = [WIRE_MODALITIES.index(name) + 1 for name in card.content["input"]["modalities"]]
    codes += [0] * (len(WIRE_MODALITIES) - len(codes))
    factor = round(engine.output.scale * STEPS_PER_LOGIT * (1 << FRACTION_BITS))
    return f"""/* Made from the card of {card.name} by convert/targets/firmware.py. */
#ifndef MODEL_H
#define MODEL_H

#define MODEL_NAME "{card.name}"
#define MODEL_MODALITIES {{{", ".join(map(str, codes))}}}
#define MODEL_SCALE {np.float32(scale)!s}f
#define MODEL_ZERO_POINT ({engine.input.zero_point})
#define MODEL_CLIP {float(card.clip)!r}f
#define MODEL_CONFIDENCE_FACTOR {factor}

#endif
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and write the tables."""
    parser = cli.parser(
        "Write the tables with which device/firmware/net computes a packed int8 file.",
        "python convert/targets/firmware.py models/compact/compact-int8.tflite --out DIR",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a packed int8 file")
    parser.add_argument("--out", type=Path, default=Path("build/firmware"), metavar="DIR",
                        help="default: %(default)s")  # fmt: skip
    cli.run(firmware_command, parser.parse_args(argv))


def firmware_command(arguments: argparse.Namespace) -> None:
    """Write the tables of one file; nothing is written if it does not fit."""
    source: Path = arguments.file
    try:
        result = check(source.read_bytes(), source.stem)
    except GliosliceError as error:
        raise GliosliceError(f"{source}: {error}") from None
    if not result.ok:
        raise GliosliceError(f"{source}: {result.problems}; nothing was written")
    files = dict(result.files)
    if (source.parent / CARD).is_file():
        files[MODEL] = model_header(Engine(source, reference=True)).encode()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes(arguments.out / name, content)
    print(result.table)
    print(f"wrote {', '.join(sorted(files))} into {arguments.out}")
    if MODEL not in files:
        print(f"no {MODEL}, which the whole firmware needs: there is no {CARD} beside the file")


if __name__ == "__main__":
    main()
