"""A mask as DICOM Segmentation on the frames of its source series, by highdicom.

    classic    three binary segments that overlap: whole tumour, tumour core, enhancing tumour
    labelmap   three segments that do not: edema, non-enhancing core, enhancing tumour

Some archives refuse the label map, which DICOM has had since 2024. The object refers to its source
by the frame of reference, the series and each instance, so a viewer can overlay it. It holds the
patient's name, because it belongs into the patient's study.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from glioslice import __version__
from glioslice.errors import GliosliceError
from glioslice.files import NOTICE, atomic_path
from glioslice.labels import CORE, EDEMA, ENHANCING, to_regions
from scanner.series import READ_ERRORS

CLASSIC, LABELMAP = "classic", "labelmap"
FORMS = (CLASSIC, LABELMAP)

SEGMENTS = {
    CLASSIC: (
        ("Whole tumour", codes.SCT.Neoplasm),
        ("Tumour core", codes.SCT.NeoplasmPrimary),
        ("Enhancing tumour", codes.NCIt.EnhancingLesion),
    ),
    LABELMAP: (
        ("Edema", codes.SCT.Edema),
        ("Non-enhancing tumour core", codes.NCIt.NonEnhancingLesion),
        ("Enhancing tumour", codes.NCIt.EnhancingLesion),
    ),
}
"""Name and coded type of each segment, from DICOM's context groups 7159 and 6014."""

LABELMAP_ORDER = (EDEMA, CORE, ENHANCING)
SERIES_OFFSET = 9000
"""Added to the source's series number, so that the segmentation stands behind the scanner's."""


def write_segmentation(
    path: Path,
    sources: Sequence[pydicom.Dataset],
    labels: NDArray[np.uint8],
    form: str = CLASSIC,
    model: str = "",
) -> None:
    """Write labels (columns, rows, slices) on the frames of `sources` as a DICOM SEG, atomically.

    Equal masks of equal sources have equal UIDs. Raises GliosliceError if highdicom refuses the
    sources.
    """
    frames = np.moveaxis(labels, (2, 1, 0), (0, 1, 2))  # (slices, rows, columns)
    if form == CLASSIC:
        pixels = np.moveaxis(to_regions(frames), 0, -1).astype(np.uint8)
    else:
        pixels = np.zeros(frames.shape, np.uint8)
        for number, label in enumerate(LABELMAP_ORDER, 1):
            pixels[frames == label] = number
    first = sources[0]
    entropy = [first.SeriesInstanceUID, form, model, hashlib.sha256(pixels.tobytes()).hexdigest()]
    kind = highdicom.seg.SegmentationTypeValues
    try:
        segmentation = highdicom.seg.Segmentation(
            source_images=list(sources),
            pixel_array=pixels,
            segmentation_type=kind.BINARY if form == CLASSIC else kind.LABELMAP,
            segment_descriptions=_descriptions(form, model),
            series_instance_uid=generate_uid(entropy_srcs=[*entropy, "series"]),
            sop_instance_uid=generate_uid(entropy_srcs=[*entropy, "instance"]),
            series_number=int(first.get("SeriesNumber") or 0) + SERIES_OFFSET,
            instance_number=1,
            manufacturer="glioslice",
            manufacturer_model_name=f"glioslice {model}".strip(),
            software_versions=__version__,
            device_serial_number="0",
            series_description=f"glioslice. {NOTICE}",
            content_description="Research use only",
            omit_empty_frames=bool(labels.any()),
        )
    except READ_ERRORS as error:
        raise GliosliceError(
            f"no DICOM SEG can be made of series {first.get('SeriesNumber') or '?'} ({error})"
        ) from None
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)


def _descriptions(form: str, model: str) -> list[highdicom.seg.SegmentDescription]:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=f"glioslice {model}".strip(),
        family=codes.DCM.ArtificialIntelligence,
        version=__version__,
        source="glioslice",
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=code,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, (name, code) in enumerate(SEGMENTS[form], 1)
    ]
