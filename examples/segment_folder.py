"""Segment every case of a folder: python examples/segment_folder.py CASES MASKS."""

import sys
from pathlib import Path

import device
import glioslice


def main(cases: str, masks: str) -> None:
    """Write `<case>-mask.nii.gz` into the folder `masks` for each case of the folder `cases`."""
    engine = device.Engine(device.find_model("compact"))
    for files in glioslice.find_cases(cases):
        case = glioslice.read_case(files)
        for warning in glioslice.find_warnings(case.images):
            print(f"{case.name}: warning: {warning}")
        labels = device.segment_images(case.images, engine).labels
        path = Path(masks) / f"{case.name}-mask.nii.gz"
        glioslice.write_mask(path, glioslice.to_scheme(labels, case.scheme), case.space)
        volumes = glioslice.volumes_ml(labels)
        print(f"{path}: {volumes['WT']:.1f} mL of tumour")


if __name__ == "__main__":
    main(*sys.argv[1:])
