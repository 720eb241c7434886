"""The usual way with MONAI, as a yardstick: its transforms, and a 3-D network on the whole brain.

    python benchmarks/pipeline_volumes.py CASE OUT

The network is the SegResNet of MONAI's BraTS tutorial with random weights: its time and its memory
do not depend on them. It slides a window of 128 x 128 x 128 voxels over the box around the brain.
"""

import training  # noqa: F401  # first: it keeps TensorFlow out of MONAI's imports

# isort: split
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from monai.networks.nets.segresnet import SegResNet
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import CropForegroundd
from monai.transforms.intensity.dictionary import NormalizeIntensityd
from monai.transforms.io.dictionary import LoadImaged
from monai.transforms.spatial.dictionary import Orientationd, Spacingd
from monai.transforms.utility.dictionary import EnsureChannelFirstd


def main() -> None:
    """Segment the case that the command line names."""
    case, out = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    files = [next(case.glob(f"*_{m}.nii.gz")) for m in ("t1ce", "t1", "t2", "flair")]
    prepare = Compose(
        [
            LoadImaged(keys="image"),
            EnsureChannelFirstd(keys="image"),
            Orientationd(keys="image", axcodes="RAS"),
            Spacingd(keys="image", pixdim=(1.0, 1.0, 1.0), mode="bilinear"),
            CropForegroundd(keys="image", source_key="image"),
            NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
        ]
    )
    image = prepare({"image": files})["image"].as_tensor()
    network = SegResNet(
        init_filters=16,
        in_channels=4,
        out_channels=3,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
    ).eval()
    with torch.no_grad():
        logits = sliding_window_inference(image[None], (128, 128, 128), 1, network, overlap=0.25)
    mask = (torch.as_tensor(logits)[0] > 0).any(dim=0).numpy().astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, np.eye(4)), out / "mask.nii.gz")


if __name__ == "__main__":
    main()
