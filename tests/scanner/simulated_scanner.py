"""A simulated scanner: DICOM series of a head, as odd as those of real scanners."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import dcmqi
import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from benchmarks.acquisition import Acquisition, acquire
from glioslice.nifti import Space
from glioslice.phantom.head import make_phantom
from glioslice.phantom.skull import add_skull
from scanner.volumes import TO_LPS, Grid, Matrix, Volume, resample

MR_IMAGE = UID("1.2.840.10008.5.1.4.1.1.4")
SIZE = (180, 220, 160)
"""Voxels of 1 mm that hold the head."""

PRIVATE_TEXTS = ("Müller^Jürgen", "PAT-4711-X", "19610203", "ACC90210", "Klinikum Süd", "20260314")
"""Texts of the study that must not leave it."""


@dataclass(frozen=True)
class Protocol:
    """How a sequence is acquired, and what its tags say."""

    modality: str
    number: int
    description: str
    te: float
    tr: float
    ti: float | None = None
    agent: str = ""
    thickness: float = 5.0
    gap: float = 0.0
    in_plane: float = 1.0
    size: tuple[int, int] = (224, 240)
    oblique: Matrix | None = None
    pose: Matrix = field(default_factory=lambda: np.eye(4))
    syntax: str = ExplicitVRLittleEndian
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "NORM")
    tags: tuple[tuple[str, object], ...] = ()


T1 = Protocol("t1", 2, "t1_se_tra", te=9, tr=500)
T1CE = Protocol("t1ce", 5, "t1_se_tra", te=9, tr=500, agent="Gadovist")
T2 = Protocol("t2", 3, "t2_tse_tra", te=95, tr=4500)
FLAIR = Protocol("flair", 4, "tirm_tra_dark-fluid", te=110, tr=9000, ti=2500)
SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless,
    JPEG2000Lossless, JPEGLSLossless,
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """Who lies in the scanner."""

    name: str = PRIVATE_TEXTS[0]
    identifier: str = PRIVATE_TEXTS[1]
    birth: str = PRIVATE_TEXTS[2]


@dataclass(frozen=True)
class Head:
    """A head with its skull: volumes by modality, and its labels, on one grid at 1 mm."""

    volumes: dict[str, Volume]
    labels: NDArray[np.uint8]
    brain: NDArray[np.bool_]
    grid: Grid


@cache
def phantom_head(seed: int) -> Head:
    """The phantom of `seed`, made coarse and refined, because that is fast, with skull and neck."""
    coarse = (120, 120, 78)
    phantom = make_phantom(seed, shape=coarse)
    voxel = max(152 / 120, 188 / 120, 150 / 78)
    affine = np.diag([-voxel, -voxel, voxel, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(coarse) - 1) / 2)
    grid = Grid(SIZE, np.asarray(Space.lps(SIZE).affine))
    at = Grid(coarse, affine)
    brain = resample(Volume((phantom.images[0] > 0).astype(np.float32), at), grid, np.eye(4)) > 0.5
    images = np.stack([
        np.maximum(resample(Volume(image, at), grid, np.eye(4)), 1) * brain
        for image in phantom.images
    ])  # fmt: skip
    labels = resample(Volume(phantom.labels.astype(np.float32), at), grid, np.eye(4), "nearest")
    head = add_skull(np.asarray(images, np.float32), seed)
    volumes = dict(zip(("flair", "t1", "t1ce", "t2"), (Volume(h, grid) for h in head), strict=True))
    return Head(volumes, labels.astype(np.uint8), brain, grid)


def scan(head: Head, protocol: Protocol) -> Acquisition:
    """Return the volume of a series."""
    return acquire(
        head.volumes[protocol.modality], protocol.pose, protocol.thickness,
        in_plane=protocol.in_plane, gap=protocol.gap, field=protocol.size,
        oblique=protocol.oblique,
    )  # fmt: skip


def write_series(
    folder: Path,
    volume: Volume,
    protocol: Protocol,
    patient: Patient = Patient(),
    study: str = "study",
) -> list[Path]:
    """Write a volume as DICOM files, one a slice, in no particular order of names."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = [patient.identifier, study, str(protocol.number)]
    affine = TO_LPS @ volume.grid.affine
    columns, rows, slices = volume.grid.shape
    spacing = volume.grid.spacing
    scale = 4000 / max(float(volume.voxels.max()), 1.0)
    paths = []
    for index in range(slices):
        pixels = np.rint(volume.voxels[:, :, index].T * scale).astype("<u2")
        instance = _header(protocol, patient, uid, study)
        instance.SOPInstanceUID = generate_uid(entropy_srcs=[*uid, str(index)])
        instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        instance.InstanceNumber = index + 1
        instance.ImagePositionPatient = [
            float(f"{n:.6f}") for n in affine[:3, :] @ [0, 0, index, 1]
        ]
        axes = [*(affine[:3, 0] / spacing[0]), *(affine[:3, 1] / spacing[1])]
        instance.ImageOrientationPatient = [float(f"{n:.9f}") for n in axes]
        instance.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        instance.SliceThickness = protocol.thickness
        instance.SpacingBetweenSlices = float(spacing[2])
        instance.Rows, instance.Columns = rows, columns
        path = folder / f"IM{(index * 37 + 11) % 1009:04d}-{protocol.number}-{index}"
        _save(instance, pixels, protocol.syntax, path)
        paths.append(path)
    return paths


def _header(protocol: Protocol, patient: Patient, uid: Sequence[str], study: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MR_IMAGE
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = generate_uid(entropy_srcs=["simulated scanner"])
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID, header.Modality = MR_IMAGE, "MR"
    header.ImageType = list(protocol.image_type)
    header.PatientName, header.PatientID = patient.name, patient.identifier
    header.PatientBirthDate, header.PatientSex = patient.birth, "M"
    header.PatientAge, header.PatientWeight = "065Y", "80"
    header.AccessionNumber, header.InstitutionName = PRIVATE_TEXTS[3], PRIVATE_TEXTS[4]
    header.StudyDate = header.SeriesDate = header.ContentDate = PRIVATE_TEXTS[5]
    header.AcquisitionDate, header.AcquisitionTime = PRIVATE_TEXTS[5], f"10{protocol.number:02d}00"
    header.StudyTime = header.SeriesTime = header.ContentTime = f"10{protocol.number:02d}00"
    header.ReferringPhysicianName, header.StudyID = "", "1"
    header.StudyInstanceUID = generate_uid(entropy_srcs=[*uid[:2]])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=list(uid))
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=[*uid[:2], "frame"])
    header.PositionReferenceIndicator, header.Laterality = "", ""
    header.SeriesNumber, header.SeriesDescription = protocol.number, protocol.description
    header.ProtocolName, header.BodyPartExamined = protocol.description, "HEAD"
    header.Manufacturer, header.ManufacturerModelName = "SIMULATED", "Phantom"
    header.PatientPosition, header.MagneticFieldStrength = "HFS", 3
    header.ScanningSequence, header.SequenceVariant = "SE", "SK"
    header.ScanOptions, header.MRAcquisitionType = "", "2D"
    header.EchoTime, header.RepetitionTime = protocol.te, protocol.tr
    header.EchoTrainLength, header.FlipAngle = 1, 90
    if protocol.ti is not None:
        header.InversionTime = protocol.ti
    if protocol.agent:
        header.ContrastBolusAgent = protocol.agent
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelRepresentation = 0
    for keyword, value in protocol.tags:
        setattr(header, keyword, value)
    return header


def _save(instance: FileDataset, pixels: NDArray[np.uint16], syntax: str, path: Path) -> None:
    meta = instance.file_meta
    if syntax == ExplicitVRBigEndian:
        meta.TransferSyntaxUID = ExplicitVRBigEndian
        instance.PixelData = pixels.astype(">u2").tobytes()
        instance["PixelData"].VR = "OW"
        pydicom.dcmwrite(path, instance, implicit_vr=False, little_endian=False)
        return
    instance.PixelData = pixels.tobytes()
    instance["PixelData"].VR = "OW"
    if syntax == ImplicitVRLittleEndian:
        meta.TransferSyntaxUID = ImplicitVRLittleEndian
    elif syntax != ExplicitVRLittleEndian:
        instance.compress(syntax, generate_instance_uid=False)
    instance.save_as(path, enforce_file_format=True)


def write_study(folder: Path, head: Head, protocols: Sequence[Protocol]) -> dict[str, Acquisition]:
    """Scan a head with each protocol into a folder of its own; return what was acquired."""
    scans = {}
    for protocol in protocols:
        scans[protocol.modality] = scan(head, protocol)
        place = folder / f"S{protocol.number:03d}"
        write_series(place, scans[protocol.modality].volume, protocol)
    return scans


def small_volume(slices: int = 20, value: int = 0) -> Volume:
    """A small volume for tests of headers alone."""
    affine = np.diag([-5.0, -5.0, 5.0, 1.0])
    noise = np.random.default_rng(value).uniform(0, 1000, (40, 48, slices))
    return Volume(noise.astype(np.float32), Grid((40, 48, slices), affine))


def write_headers(
    folder: Path, protocol: Protocol, slices: int = 20, **changes: object
) -> list[Path]:
    """Write a series of tiny images, whose pixels depend on its number."""
    changed = replace(protocol, **changes)  # type: ignore[arg-type]
    place = folder / f"S{changed.number:03d}"
    return write_series(place, small_volume(slices, changed.number), changed)


def read(path: Path) -> Dataset:
    """Read a DICOM file."""
    return pydicom.dcmread(path)


def read_by_dcmqi(path: Path, folder: Path) -> list[nib.Nifti1Image]:
    """The segments of a DICOM SEG, in order, as DCMQI reads them."""
    folder.mkdir()
    program = Path(dcmqi.__file__).parent / "bin" / "segimage2itkimage"
    subprocess.run(
        [program, "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nii"],
        check=True, capture_output=True,
    )  # fmt: skip
    return [nib.Nifti1Image.from_filename(p) for p in sorted(folder.glob("*.nii*"))]
