"""The network as TFLite files: torch to ONNX, onnx2tf to TensorFlow, its converter to three files.

The tools print a lot and mean little by it: what they say goes to a log that is shown on failure.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from training.network import Network, folded

INPUT, OUTPUT = "slice", "logits"
PRECISIONS = ("int8", "fp16", "fp32")
LOG_LINES = 5


def with_thresholds(network: Network, thresholds: tuple[float, ...]) -> Network:
    """Return the network with its batch norms and thresholds folded in, in evaluation mode.

    `thresholds` are probabilities, one a region. Logits of the result are positive where
    sigmoid(logits of `network`) is above the threshold: the bias gives up
    logit(t) = log(t / (1 - t)).
    """
    if len(thresholds) != network.config.outputs or not all(0 < t < 1 for t in thresholds):
        raise GliosliceError(
            f"thresholds {list(thresholds)}: expected {network.config.outputs} between 0 and 1"
        )
    copy = folded(network)
    bias = copy.head.bias
    assert bias is not None
    with torch.no_grad():
        bias -= torch.logit(torch.tensor(thresholds, dtype=bias.dtype))
    return copy


def export(
    network: Network, window: tuple[int, int], calibration: NDArray[np.float32]
) -> dict[str, bytes]:
    """Return a file for each of PRECISIONS: (1, *window, inputs) in, (1, *window, outputs) out.

    `network` has its batch norms folded. `calibration` holds slices (N, *window, inputs) as the
    network sees them; the extremes of each tensor over them become its int8 range.

    Raises GliosliceError with the last lines of the tools' log, which is kept, if one fails.
    """
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch:
        folder = Path(scratch)
        log = folder / "log.txt"
        try:
            with _chatter_into(log):
                _to_onnx(network, window, folder / "net.onnx")
                _to_tensorflow(folder / "net.onnx", calibration, folder)
                return {
                    "int8": _quantised(folder, calibration),
                    "fp16": (folder / "net_float16.tflite").read_bytes(),
                    "fp32": (folder / "net_float32.tflite").read_bytes(),
                }
        except (Exception, SystemExit) as error:  # onnx2tf exits on what it cannot convert
            raise GliosliceError(_failure(error, log)) from error


def _to_onnx(network: Network, window: tuple[int, int], path: Path) -> None:
    torch.onnx.export(
        network,
        (torch.zeros(1, network.config.inputs, *window),),
        str(path),
        dynamo=False,  # the other exporter wants onnxscript
        opset_version=17,
        input_names=[INPUT],
        output_names=[OUTPUT],
    )


def _to_tensorflow(onnx: Path, calibration: NDArray[np.float32], folder: Path) -> None:
    """Write `folder` as a SavedModel, and the float files beside it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import onnx2tf
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    samples = folder / "samples.npy"
    np.save(samples, calibration[:1])
    channels = (1, 1, 1, calibration.shape[-1])
    onnx2tf.convert(
        input_onnx_file_path=str(onnx),
        output_folder_path=str(folder),
        # Without samples onnx2tf downloads pictures of cats.
        custom_input_op_name_np_data_path=[
            [INPUT, str(samples), np.zeros(channels, np.float32), np.ones(channels, np.float32)]
        ],
        # torch has folded the constants already; onnxsim is a program that may not be on the PATH.
        not_use_onnxsim=True,
        copy_onnx_input_output_names_to_tflite=True,
        verbosity="error",
    )


def _quantised(saved_model: Path, calibration: NDArray[np.float32]) -> bytes:
    """Return the full-integer file: what onnx2tf does after calibrating four times, done once."""
    import tensorflow as tf

    def slices() -> Iterator[dict[str, NDArray[np.float32]]]:
        for one in calibration:
            yield {INPUT: one[np.newaxis]}

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = slices
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content: Any = converter.convert()
    return bytes(content)


@contextmanager
def _chatter_into(log: Path) -> Iterator[None]:
    """Send what Python and the libraries below it print into `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with (
        log.open("a", buffering=1) as file,
        redirect_stdout(file),
        redirect_stderr(file),
        warnings.catch_warnings(action="ignore"),
    ):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            for own, number in zip(kept, (1, 2), strict=True):
                os.dup2(own, number)
                os.close(own)


def _failure(error: BaseException, log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    with tempfile.NamedTemporaryFile(
        "w", prefix="glioslice-convert-", suffix=".log", delete=False
    ) as kept:
        kept.write("\n".join(lines))
    said = " | ".join(lines[-LOG_LINES:]) or repr(error)
    return f"the conversion failed ({type(error).__name__}): {said} (the whole log: {kept.name})"
