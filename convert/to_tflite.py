"""Convert a trained network to packed TFLite files under 60,000 bytes.

    python convert/to_tflite.py                                       # both models of models/
    python convert/to_tflite.py runs/compact --data DIR --out build/compact
    python convert/to_tflite.py runs/compact --target pi,micro        # is int8 fit for a board?
    python convert/to_tflite.py net.onnx --calibration images.npy     # an external network
    python convert/to_tflite.py mine.net:build --calibration images.npz

No file is written that does not compute what the trained network does. OUT becomes a model folder
with `report.json` and `report.svg`; files for comparison lie in OUT/compare/. Without --data the
int8 ranges are calibrated on phantoms, and the files are evaluated on other phantoms.

If the int8 file falls too far below fp32, the next quantization strategy is tried
(`convert.quantization`). If none passes, int8 is dropped and the other products are written.
If int8 was requested by name, nothing is written and the exit code is 2. The same holds if the int8
file is not compatible with a requested target (`convert.targets`).

From Python, `convert` does the same for a torch module.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from convert.artifacts import (
    PICTURE,
    REPORT,
    ModelFile,
    choose_precisions,
    make_output_folder,
    publish,
    write_files,
)
from convert.calibration import InputShape, SampleImages, assign_roles, check_images, read_images
from convert.external_model import (
    ExternalModel,
    import_module_network,
    load_onnx,
    make_external_model,
    wrap_module,
)
from convert.own_model import OwnModel, thresholds_of
from convert.pipeline import Conversion, ConversionResult, Source, run_conversion
from convert.report import draw_layers, file_table, layer_table, make_conversion_report
from convert.targets import TargetResult, coral, ethos, firmware, micro, pi
from convert.verify.acceptance import STANDARD, Limits
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.model_card import SHIPPED_MODELS, shipped_folder
from training.checkpoint import load_model

logger = logging.getLogger(__name__)

Write = Callable[[Sequence[ModelFile], dict[str, Any], Mapping[str, bytes]], None]
"""Writes TFLite files, their report and extra files by name."""

Check = Callable[[bytes, str], TargetResult]

TARGETS: dict[str, Check] = {
    "pi": pi.check,
    "coral": coral.check,
    "micro": micro.check,
    ethos.TARGET: ethos.check,
    "firmware": firmware.check,
}
"""What `--target` checks the int8 file for."""


def convert(
    source: nn.Module | str | Path,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    images: NDArray[Any] | str | Path | None = None,
    masks: NDArray[Any] | None = None,
    input_shape: InputShape | None = None,
    threshold: float | None = None,
    precision: str | None = None,
    limits: Limits = STANDARD,
    targets: Sequence[str] = (),
) -> Path:
    """Convert a network to packed TFLite files, print how they compare, and write them.

    Args:
        source: A network of glioslice: a shipped size ("nano", "compact") or a model folder. Or any
            other network with one input and one output: a torch module, an ONNX file, or
            "package.module:factory" of a function that makes a torch module.
        out: The folder to write to; build/<name> by default. It may be the model folder itself.
        data: For a network of glioslice: a folder of cases that calibrate and evaluate; phantoms by
            default.
        images: For any other network: float32 images (N, C, H, W) as it takes them, at least eight,
            or a .npy or .npz file of them. Three quarters calibrate, the last quarter evaluates.
        masks: Ground truth (N, K, H', W') of the network's outputs, 0 or 1. With masks the gate
            compares Dice, without them agreement with the network. An .npz file may hold them.
        input_shape: Channels, rows and columns, for an ONNX file that leaves sizes open.
        threshold: For any other network: outputs above it are positive; 0 by default.
        precision: The products: "int8", "fp16" or both with a comma; by default what fits the size.
        limits: How far a product may fall below the network, and its bytes.
        targets: Names of boards that the int8 file must be compatible with (`convert.targets`).

    Returns:
        The folder that was written: <name>-int8.tflite, <name>-fp16.tflite, report.json, ...

    Raises:
        GliosliceError: The arguments do not go together, a layer is unsupported, a tool failed, no
            product passed the gate, or a target is not compatible. Nothing was written.
    """
    targets = choose_targets(targets)
    folder = _own_folder(source)
    if folder is None:
        if data is not None:
            raise GliosliceError("--data is for networks of glioslice; give --calibration images")
        external = _load_external(source, images, masks, input_shape, threshold, limits)
        return _convert_external(external, out, precision, limits, targets)
    given = {
        "--calibration": images,
        "masks": masks,
        "--input-shape": input_shape,
        "--threshold": threshold,
    }
    for option, value in given.items():
        if value is not None:
            raise GliosliceError(
                f"{option} is for external networks; for one of glioslice give cases: --data"
            )
    cases = None if data is None else Path(data)
    compare = str(source) in SHIPPED_MODELS
    return _convert_own(folder, cases, out, precision, limits, targets, compare=compare)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and convert."""
    parser = cli.parser(
        "Convert a trained network to packed int8 and fp16 TFLite files under 60,000 bytes.",
        "glioslice convert runs/compact --data DIR --out build/compact",
    )
    _add_options(parser)
    cli.run(convert_command, parser.parse_args(argv))


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="?", metavar="SOURCE",
        help=f"a shipped size ({', '.join(SHIPPED_MODELS)}), a model folder, an ONNX file, or "
        "PACKAGE.MODULE:FACTORY of a torch module; default: all shipped sizes",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="cases to calibrate on; default: phantoms"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the files; default: build/<name>"
    )
    parser.add_argument("--precision", help="the products: int8, fp16, or both with a comma")
    parser.add_argument(
        "--max-drop", type=float, default=STANDARD.max_drop, metavar="DICE",
        help="how far a product's mean Dice may fall below fp32; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--min-agreement", type=float, default=STANDARD.min_agreement, metavar="SHARE",
        help="share of brain voxels (or pixels) that must agree with the network where there are "
        "no masks; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--max-bytes", type=int, default=STANDARD.max_bytes, metavar="N",
        help="largest size of a product; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--target", action="append", default=[], metavar="NAME",
        help="a board that the int8 file must be compatible with, or several with commas: "
        f"{', '.join(TARGETS)}",
    )  # fmt: skip
    group = parser.add_argument_group("an external network")
    group.add_argument(
        "--onnx", type=Path, metavar="FILE", help="the same as SOURCE, for any file name"
    )
    group.add_argument("--module", metavar="PACKAGE.MODULE:FACTORY", help="the same as SOURCE")
    group.add_argument(
        "--calibration", type=Path, metavar="FILE",
        help=".npy of images (N, C, H, W) as the network takes them, or .npz of images and masks",
    )  # fmt: skip
    group.add_argument(
        "--input-shape", metavar="1,C,H,W", help="default: the file's, or that of the images"
    )
    group.add_argument(
        "--threshold", type=float, metavar="X", help="outputs above it are positive; default: 0"
    )


def convert_command(arguments: argparse.Namespace) -> None:
    """Convert what the command line names; all shipped sizes if it names nothing."""
    a = arguments
    named = [source for source in (a.source, a.onnx, a.module) if source is not None]
    if len(named) > 1:
        raise GliosliceError("SOURCE, --onnx and --module each name a network; give one of them")
    options: dict[str, Any] = {
        "data": a.data,
        "images": a.calibration,
        "input_shape": None if a.input_shape is None else parse_shape(a.input_shape),
        "threshold": a.threshold,
        "precision": a.precision,
        "limits": Limits(a.max_drop, a.min_agreement, a.max_bytes),
        "targets": a.target,
    }
    if named:
        convert(named[0], a.out, **options)
        return
    for size in SHIPPED_MODELS:
        convert(size, (a.out or Path("build")) / size, **options)


def parse_shape(text: str) -> InputShape:
    """Return channels, rows and columns of "1,C,H,W"; raises GliosliceError if it is malformed."""
    try:
        batch, channels, rows, columns = (int(part) for part in text.split(","))
    except ValueError:
        batch = channels = rows = columns = 0
    if batch != 1 or min(channels, rows, columns) < 1:
        raise GliosliceError(f"--input-shape {text}: expected 1,CHANNELS,ROWS,COLUMNS")
    return channels, rows, columns


def choose_targets(options: Sequence[str]) -> tuple[str, ...]:
    """Return the targets that `--target` options name, each option one name or several with commas.

    Raises GliosliceError if one is unknown.
    """
    chosen = tuple(
        dict.fromkeys(part.strip() for text in options for part in text.split(",") if part.strip())
    )
    unknown = [target for target in chosen if target not in TARGETS]
    if unknown:
        raise GliosliceError(f"--target {unknown[0]}: a target is one of {', '.join(TARGETS)}")
    return chosen


def _own_folder(source: nn.Module | str | Path) -> Path | None:
    """Return the model folder that `source` names; None if it names an external network."""
    if isinstance(source, nn.Module):
        return None
    if str(source) in SHIPPED_MODELS:
        return shipped_folder(str(source))
    path = Path(source)
    if path.is_dir():
        return path
    if path.suffix == ".safetensors":
        return path.parent
    if path.suffix == ".tflite":
        raise GliosliceError(f"{source}: is a TFLite file already; `glioslice pack` shrinks it")
    if path.suffix == ".onnx" or path.is_file() or ":" in str(source):
        return None
    raise GliosliceError(
        f"{source}: no such network; give a shipped size ({', '.join(SHIPPED_MODELS)}), "
        "a model folder, an ONNX file or package.module:factory"
    )


def _load_external(
    source: nn.Module | str | Path,
    images: NDArray[Any] | str | Path | None,
    masks: NDArray[Any] | None,
    input_shape: InputShape | None,
    threshold: float | None,
    limits: Limits,
) -> ExternalModel:
    if images is None:
        raise GliosliceError("give images as the network takes them (--calibration FILE.npy)")
    samples = _load_samples(images, masks)
    if isinstance(source, nn.Module):
        name = type(source).__name__.lower()
        network = wrap_module(source, input_shape or samples.shape, name)
    elif ":" in str(source) and not Path(source).exists():
        module, name = import_module_network(str(source))
        network = wrap_module(module, input_shape or samples.shape, name)
    else:
        network = load_onnx(Path(source), input_shape)
    return make_external_model(network, samples, threshold or 0.0, limits)


def _load_samples(images: NDArray[Any] | str | Path, masks: NDArray[Any] | None) -> SampleImages:
    if isinstance(images, (str, Path)):
        samples = read_images(Path(images))
        if masks is None:
            return samples
        return check_images(samples.images, masks, str(images))
    return check_images(images, masks, "images")


def _convert_own(
    folder: Path,
    data: Path | None,
    out: str | Path | None,
    precision: str | None,
    limits: Limits,
    targets: Sequence[str],
    *,
    compare: bool,
) -> Path:
    """Convert the network of a model folder; `compare` scores agreement with the files in it."""
    network, card = load_model(folder)
    precisions = choose_precisions(precision, card.name, targets)
    thresholds = thresholds_of(card)
    out = Path(out or Path("build") / card.name)
    make_output_folder(out)
    roles = assign_roles(data, card.window, card.clip, card.trained_on)
    files = [folder / f"{card.name}-{p}.tflite" for p in ("int8", "fp16", "fp32")]
    references = {path.name: path for path in files if compare and path.is_file()}
    kind = "phantoms" if data is None else f"cases of {data}"
    _print_step(
        card.name,
        f"calibrating on {len(roles.calibration)} {kind}, evaluating on "
        f"{len(roles.evaluation)} {roles.describe_evaluation()['what']}",
    )
    source = OwnModel(network, card, thresholds, roles, references)
    if source.seen_cases:
        logger.warning(
            "%s: the gate evaluates on cases that the network was trained on (%s): their Dice "
            "compares the files with each other, but does not predict that of unseen cases; add "
            "unseen cases to --data",
            card.name,
            ", ".join(source.seen_cases),
        )
    conversion = Conversion(source, precisions, limits, bool(precision or targets))
    convert_and_write(conversion, targets, partial(publish, folder, out, card))
    _print_step(card.name, f"wrote {out / REPORT}")
    return out


def _convert_external(
    source: ExternalModel,
    out: str | Path | None,
    precision: str | None,
    limits: Limits,
    targets: Sequence[str],
) -> Path:
    precisions = choose_precisions(precision, "", targets)
    out = Path(out or Path("build") / source.name)
    make_output_folder(out)
    criterion = "Dice" if source.samples.masks is not None else "agreement with the network"
    _print_step(
        source.name,
        f"calibrating on {len(source.calibration_slices())} images of {source.samples.name}, "
        f"evaluating on {len(source.expected)} others by {criterion}",
    )
    for warning in source.warnings:
        logger.warning("%s: %s", source.name, warning)
    conversion = Conversion(source, precisions, limits, bool(precision or targets))
    convert_and_write(conversion, targets, partial(write_files, out))
    _print_step(source.name, f"wrote {out / REPORT}")
    return out


def convert_and_write(conversion: Conversion, targets: Sequence[str], write: Write) -> None:
    """Convert, print the result and hand it to `write`.

    Raises GliosliceError if no product may be written, or the int8 file is not compatible with a
    target.
    """
    source = conversion.source
    result = run_conversion(conversion)
    _print_result(source, result)
    if result.rejected:
        raise GliosliceError(f"{result.rejected}; nothing was written")
    target_results = check_targets(result, targets)
    extras = {name: content for target in target_results for name, content in target.files.items()}
    if result.layers:
        extras[PICTURE] = draw_layers(f"{source.name}-int8.tflite", result.layers)
    write(result.files, make_conversion_report(conversion, result, target_results), extras)


def check_targets(result: ConversionResult, targets: Sequence[str]) -> tuple[TargetResult, ...]:
    """Check the int8 product for each target and print the results.

    Raises GliosliceError if one is not compatible, naming the ops and what to use instead.
    """
    [file] = [file for file in result.files if file.precision == "int8"]
    results = []
    for target in targets:
        results.append(TARGETS[target](file.content, file.name.removesuffix(".tflite")))
        print(results[-1].table, flush=True)
    problems = [f"{of.target}: {of.problems}" for of in results if not of.ok]
    if problems:
        raise GliosliceError(
            f"{file.name} is not compatible with {'; '.join(problems)}; nothing was written"
        )
    return tuple(results)


def _print_result(source: Source, result: ConversionResult) -> None:
    """Print the layers, the files and the attempts at int8."""
    if result.layers:
        print(layer_table(result.layers))
    else:
        _print_step(source.name, f"no table of layers: {result.layers_error}")
    print(file_table(result.files, result.evaluations), flush=True)
    for number, attempt in enumerate(result.attempts, 1):
        verdict = "passed" if attempt.gate.passed else "failed"
        strategy = attempt.candidate.strategy
        _print_step(source.name, f"int8, attempt {number} ({strategy}): {attempt.gate}: {verdict}")
    if result.int8_rejected:
        _print_step(source.name, f"int8 was dropped: {result.int8_rejected}")


def _print_step(name: str, text: str) -> None:
    print(f"{name}: {text}", flush=True)


if __name__ == "__main__":
    main()
