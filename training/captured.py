"""A network's forward and backward pass recorded as CUDA graphs.

A compact network's kernels end sooner than Python can start the next: recorded, they are started
together, and a GPU trains several networks in the time of one.
"""

import torch

from training.network import Network
from training.process import Process


def captured(network: Network, batch: int, crop: int, place: Process) -> Network:
    """Return the network, its passes in training mode recorded for images (batch, C, crop, crop).

    The network is changed in place; in evaluation mode it runs as before. On a CPU nothing happens.
    """
    if place.device.type != "cuda":
        return network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sample = torch.zeros(batch, network.config.inputs, crop, crop, device=place.device)
    sample = sample.contiguous(memory_format=torch.channels_last)
    network.train()
    with torch.autocast("cuda", torch.bfloat16, enabled=place.mixed, cache_enabled=False):
        torch.cuda.make_graphed_callables(network, (sample,))  # changes its forward
    network.load_state_dict(before)  # the rehearsals have moved the running means
    return network
