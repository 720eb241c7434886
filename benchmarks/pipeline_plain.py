"""From scan to mask as a plain script of nibabel, numpy, LiteRT and Pillow, as a yardstick.

python benchmarks/pipeline_plain.py CASE MODEL.tflite OUT
"""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

case, model, out = (Path(argument) for argument in sys.argv[1:])
files = [next(case.glob(f"*_{modality}.nii.gz")) for modality in ("flair", "t1", "t1ce", "t2")]
volumes = np.stack([nib.Nifti1Image.from_filename(file).get_fdata() for file in files])

brain = (volumes != 0).any(axis=0)
x, y, z = np.nonzero(brain)
x0 = (x.min() + x.max() + 1 - 160) // 2
y0 = (y.min() + y.max() + 1 - 192) // 2
for volume in volumes:
    inside = volume[brain]
    volume[brain] = np.clip((inside - inside.mean()) / inside.std(), -5, 5)

network = Interpreter(str(model), num_threads=1)
network.allocate_tensors()
takes, gives = network.get_input_details()[0], network.get_output_details()[0]
scale, zero = takes["quantization"]
mask = np.zeros(brain.shape, np.uint8)
for level in range(z.min(), z.max() + 1):
    window = np.moveaxis(volumes[:, x0 : x0 + 160, y0 : y0 + 192, level], 0, -1)
    quantized = np.clip(np.rint(window / scale) + zero, -128, 127).astype(np.int8)
    network.set_tensor(takes["index"], quantized[None])
    network.invoke()
    wt, tc, et = (
        np.moveaxis(network.get_tensor(gives["index"])[0], -1, 0) > gives["quantization"][1]
    )
    labels = np.where(et, 4, np.where(tc, 1, np.where(wt, 2, 0)))
    mask[x0 : x0 + 160, y0 : y0 + 192, level] = labels

nib.save(nib.Nifti1Image(mask, nib.Nifti1Image.from_filename(files[0]).affine), out / "mask.nii.gz")
middle = int(np.argmax(mask.any(axis=(0, 1)) * mask.sum(axis=(0, 1), dtype=np.int64)))
grey = np.clip((volumes[0, :, :, middle].T + 2) / 5.5 * 255, 0, 255).astype(np.uint8)
colour = np.stack([grey, grey, np.where(mask[:, :, middle].T > 0, 255, grey)], axis=-1)
Image.fromarray(colour).save(out / "mask.png", optimize=True)
