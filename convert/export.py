"""Export a torch network to float TFLite files: torch to ONNX, ONNX to TensorFlow, to TFLite.

The int8 file is made from the float one (`convert.quantization`).
"""

import tempfile
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convert.log_capture import capture_output
from convert.quantization import calibrate, quantize_file
from convert.tflite.reader import list_of, read_model
from convert.tflite.writer import serialize
from glioslice.errors import GliosliceError
from training.network import Network, fold_batch_norms

INPUT, OUTPUT = "slice", "logits"
PRECISIONS = ("int8", "fp16", "fp32")
REDUCED_PRECISION = b"reduced_precision_support"
"""Metadata that allows a runtime to compute in half precision."""


def fold_thresholds(network: Network, thresholds: tuple[float, ...]) -> Network:
    """Return the network with its batch norms and thresholds folded in, in evaluation mode.

    `thresholds` are probabilities, one per region. The result's logits are positive where
    sigmoid(logits of `network`) is above the threshold t, since logit(t) = log(t / (1 - t)) is
    subtracted from the last bias. Raises GliosliceError if a threshold is not a probability.
    """
    if len(thresholds) != network.config.outputs or not all(0 < t < 1 for t in thresholds):
        raise GliosliceError(
            f"thresholds {list(thresholds)}: expected {network.config.outputs} between 0 and 1"
        )
    copy = fold_batch_norms(network)
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
    network takes them; the extremes of each tensor over them become its int8 range.

    Raises GliosliceError with the last lines of the tools' log, which is kept, if one fails.
    """
    files = export_float_files(network, window, calibration)
    return {"int8": quantize_file(calibrate(files["fp32"], calibration)), **files}


def export_float_files(
    network: Network, window: tuple[int, int], calibration: NDArray[np.float32]
) -> dict[str, bytes]:
    """Return the fp16 and the fp32 file of `export`; only one slice of `calibration` is run."""
    return convert_onnx(export_onnx(network, (network.config.inputs, *window)), calibration)


def export_onnx(network: nn.Module, shape: tuple[int, int, int]) -> bytes:
    """Return a network as an ONNX model with the input INPUT, (1, *shape), and the output OUTPUT.

    Raises GliosliceError as `export` does.
    """
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch, capture_output():
        path = Path(scratch) / "net.onnx"
        torch.onnx.export(
            network,
            (torch.zeros(1, *shape),),
            str(path),
            dynamo=False,  # the other exporter needs onnxscript
            opset_version=17,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
        return path.read_bytes()


def convert_onnx(onnx: bytes, calibration: NDArray[np.float32]) -> dict[str, bytes]:
    """Return the fp16 and the fp32 file of an ONNX model with the input INPUT and output OUTPUT.

    Raises GliosliceError as `export` does.
    """
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch, capture_output():
        folder = Path(scratch)
        (folder / "net.onnx").write_bytes(onnx)
        _to_tensorflow(folder / "net.onnx", calibration, folder)
        return {
            "fp16": _forbid_reduced_precision((folder / "net_float16.tflite").read_bytes()),
            "fp32": (folder / "net_float32.tflite").read_bytes(),
        }


def _forbid_reduced_precision(fp16: bytes) -> bytes:
    """Return an fp16 file without the permission to compute in half precision.

    Its weights are halves, but its sums must be the same on every board.
    """
    model = read_model(fp16)
    model.metadata = [m for m in list_of(model.metadata) if m.name != REDUCED_PRECISION]
    return serialize(model)


def _to_tensorflow(onnx: Path, calibration: NDArray[np.float32], folder: Path) -> None:
    """Write the float files into `folder`, as net_float16.tflite and net_float32.tflite."""
    import onnx2tf
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    samples = folder / "samples.npy"
    np.save(samples, calibration[:1])
    channels = (1, 1, 1, calibration.shape[-1])
    # With three input channels onnx2tf downloads sample pictures even where samples are given.
    offline = patch.object(
        import_module("onnx2tf.onnx2tf"), "download_test_image_data", lambda: calibration[:1]
    )
    with offline:
        onnx2tf.convert(
            input_onnx_file_path=str(onnx),
            output_folder_path=str(folder),
            # It compares its ops with those of ONNX on these samples.
            custom_input_op_name_np_data_path=[
                [INPUT, str(samples), np.zeros(channels, np.float32), np.ones(channels, np.float32)]
            ],
            # torch has folded the constants; onnxsim is a program that may not be on the PATH.
            not_use_onnxsim=True,
            copy_onnx_input_output_names_to_tflite=True,
            verbosity="error",
        )
