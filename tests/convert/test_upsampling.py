"""Bilinear upsampling comes out as one plain op, which XNNPACK and the Edge TPU take."""

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from convert.export import export, with_thresholds
from convert.pack import pack
from convert.targets import TARGETS
from convert.verify.graph_checks import check_graph
from training.network import NetworkConfig, UNet

WINDOW = (32, 48)


@pytest.mark.slow
@pytest.mark.parametrize("stem", [1, 2])
def test_a_bilinear_network_is_taken_whole(stem: int) -> None:
    torch.manual_seed(0)
    network = UNet(NetworkConfig((4, 6, 8), upsampling="bilinear", stem=stem)).eval()
    slices = np.random.default_rng(0).normal(size=(4, *WINDOW, 4)).astype(np.float32)
    files = export(with_thresholds(network, (0.5,) * 3), WINDOW, slices)
    for precision, content in files.items():
        graph = check_graph(pack(content), precision, WINDOW, 4)
        assert graph.names.count("RESIZE_BILINEAR") == 1 + stem  # the logits' is one more
        assert graph.names.count("PAD") == stem - 1
    for target in ("pi", "coral"):
        assert TARGETS[target](pack(files["int8"]), "tiny").ok
    interpreter = Interpreter(model_content=files["fp32"])
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], slices[:1])
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    with torch.no_grad():
        wanted = network(torch.from_numpy(slices[:1]).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
