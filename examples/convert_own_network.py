"""Convert a torch network of your own to TFLite: python examples/convert_own_network.py OUT."""

import sys

import numpy as np
from torch import nn

from convert.to_tflite import convert


def spot_finder() -> nn.Module:
    """Return a toy network that finds bright spots: images (N, 1, H, W) to logits (N, 1, H, W)."""
    mean = nn.Conv2d(1, 4, 5, padding=2, bias=False)
    head = nn.Conv2d(4, 1, 3, padding=1, bias=False)
    for layer in (mean, head):
        nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    return nn.Sequential(mean, nn.ReLU(), head).eval()


# Three quarters of the images calibrate the int8 file, the rest evaluate it.
images = np.random.default_rng(0).normal(0, 0.3, (32, 1, 48, 48)).astype(np.float32) - 0.5
for i, image in enumerate(images):
    image[:, i : i + 12, 36 - i : 48 - i] += 1
folder = convert(spot_finder(), sys.argv[1], images=images)
print(", ".join(sorted(path.name for path in folder.glob("*.tflite"))))
