"""The network as TFLite files: torch to ONNX, onnx2tf to TensorFlow, its converter to float files.

The int8 file is made of the float one (`convert.quantize.strategies`).
"""

import tempfile
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convert.log_capture import logged
from convert.quantize.strategies import calibrated, quantised
from convert.tflite.editor import written
from convert.tflite.reader import list_of, read_model
from glioslice.errors import GliosliceError
from training.network import Network, folded

INPUT, OUTPUT = "slice", "logits"
PRECISIONS = ("int8", "fp16", "fp32")
REDUCED_PRECISION = b"reduced_precision_support"


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
    floats = float_files(network, window, calibration)
    return {"int8": quantised(calibrated(floats["fp32"], calibration)), **floats}


def float_files(
    network: Network, window: tuple[int, int], calibration: NDArray[np.float32]
) -> dict[str, bytes]:
    """Return the fp16 and the fp32 file of `export`; of `calibration` one slice is run."""
    return float_files_of(onnx_of(network, (network.config.inputs, *window)), calibration)


def float_files_of(onnx: bytes, calibration: NDArray[np.float32]) -> dict[str, bytes]:
    """Return the fp16 and the fp32 file of an ONNX model that takes INPUT and gives OUTPUT.

    Raises GliosliceError as `export` does.
    """
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch, logged():
        folder = Path(scratch)
        (folder / "net.onnx").write_bytes(onnx)
        _to_tensorflow(folder / "net.onnx", calibration, folder)
        return {
            "fp16": _computed_in_float32((folder / "net_float16.tflite").read_bytes()),
            "fp32": (folder / "net_float32.tflite").read_bytes(),
        }


def _computed_in_float32(fp16: bytes) -> bytes:
    """Return an fp16 file without the leave to compute in half precision where a processor can.

    Its weights are halves, its sums shall be the same on every board.
    """
    model = read_model(fp16)
    model.metadata = [m for m in list_of(model.metadata) if m.name != REDUCED_PRECISION]
    return written(model)


def onnx_of(network: nn.Module, shape: tuple[int, int, int]) -> bytes:
    """Return the ONNX model of a network that takes (1, *shape), INPUT, and gives OUTPUT.

    Raises GliosliceError as `export` does.
    """
    with tempfile.TemporaryDirectory(prefix="glioslice-") as scratch, logged():
        made = Path(scratch) / "net.onnx"
        torch.onnx.export(
            network,
            (torch.zeros(1, *shape),),
            str(made),
            dynamo=False,  # the other exporter wants onnxscript
            opset_version=17,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
        return made.read_bytes()


def _to_tensorflow(onnx: Path, calibration: NDArray[np.float32], folder: Path) -> None:
    """Write the float files into `folder`, as net_float16.tflite and net_float32.tflite."""
    import onnx2tf
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    samples = folder / "samples.npy"
    np.save(samples, calibration[:1])
    channels = (1, 1, 1, calibration.shape[-1])
    # For an input of three channels onnx2tf downloads pictures of cats, whatever samples it has.
    offline = patch.object(
        import_module("onnx2tf.onnx2tf"), "download_test_image_data", lambda: calibration[:1]
    )
    with offline:
        onnx2tf.convert(
            input_onnx_file_path=str(onnx),
            output_folder_path=str(folder),
            # On these it compares what its ops compute with what ONNX's do.
            custom_input_op_name_np_data_path=[
                [INPUT, str(samples), np.zeros(channels, np.float32), np.ones(channels, np.float32)]
            ],
            # torch has folded the constants; onnxsim is a program that may not be on the PATH.
            not_use_onnxsim=True,
            copy_onnx_input_output_names_to_tflite=True,
            verbosity="error",
        )
