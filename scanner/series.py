"""The series of a folder of DICOM files: which is T1, T1ce, T2 and FLAIR, and why.

Tags decide first: contrast agent, TE, TR, TI, sequence, image type; text only where they do not.
Whatever is not an original slice of a head is passed over, with the reason. Two candidates for one
sequence are a question for the user. Nothing here prints or keeps a name, a date or a UID.
"""

import hashlib
import re
import struct
import subprocess
import tempfile
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError

from glioslice.dataset_layouts import MODALITY_TITLES
from glioslice.errors import GliosliceError
from scanner.volumes import SAME_PLACE, TO_LPS, Grid, Volume, corner_distance, read_volume

# What pydicom warns of are values of the study, a name in an unknown encoding for example.
warnings.filterwarnings("ignore", module=r"pydicom\.")

MIN_FRAMES = 12
"""Fewest slices of a whole brain; localisers have fewer."""

MAX_GAP = 1.2
"""Largest distance between two slices as a multiple of the usual one; more is a missing slice."""

HEADS = {"", "HEAD", "BRAIN", "SKULL", "HEADNECK", "NEURO", "SCHAEDEL", "KOPF", "HIRN", "WHOLEBODY"}
"""Body parts that may hold a brain, without spaces."""

GEOMETRY = {
    "ImageOrientationPatient": 6, "ImagePositionPatient": 3, "PixelSpacing": 2, "Rows": 1,
    "Columns": 1,
}  # fmt: skip
"""Tags that place a slice, and how many numbers each holds."""

PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

TAGS = (
    *GEOMETRY, *PIXEL_DATA, "Modality", "SOPClassUID", "PatientID", "PatientName",
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber", "SeriesDescription",
    "ProtocolName", "SequenceName", "ImagesInAcquisition", "ImageType", "BodyPartExamined",
    "DiffusionBValue", "AngioFlag", "EchoTime", "RepetitionTime", "InversionTime",
    "ScanningSequence", "ContrastBolusAgent",
)  # fmt: skip
"""Tags that are read; a damaged one counts as missing."""

READ_ERRORS = (
    EOFError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError, OverflowError,
    BytesLengthException, struct.error, zlib.error,
)  # fmt: skip
"""What pydicom raises of a damaged file."""

ENHANCED = "1.2.840.10008.5.1.4.1.1.4.1"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"

# Of descriptions whose underscores and hyphens are spaces.
LOCALISER = re.compile(r"\b(loc|localizer|localiser|lokalisator|scout|survey|aahead|3 ?pl)", re.I)
DIFFUSION = re.compile(r"dwi|dti|\badc|trace|diff|\bb ?1000|\bfa\b|ep2d", re.I)
PERFUSION = re.compile(r"perf|\b(dsc|dce|asl|rcbv|rcbf|mtt|ttp)\b", re.I)
DERIVED = re.compile(r"\b(mpr|mip|sub|subtraction|mean|reformat|projection|screen\w*)\b", re.I)
CONTRAST = re.compile(
    r"\+ ?(c|gd|km|k)\b|\b(post|gad|gd|km|ce|t1c)\b|gado|contrast|kontrast|t1ce|t1 ?gd", re.I
)
NO_CONTRAST = re.compile(r"\b(pre|nativ|without|w/?o|ohne|non)\b", re.I)
TEXTS = {
    "flair": re.compile(r"flair|tirm|dark ?fluid", re.I),
    "t2": re.compile(r"\bt2", re.I),
    "t1": re.compile(r"\bt1|mprage|bravo|spgr|tfe", re.I),
}

LONG_ECHO = 12.0
"""TE in ms from which a gradient echo is weighted by T2*, as in SWI."""


@dataclass(frozen=True)
class Series:
    """One series: its files from one end of the head to the other, and its role.

    `number` is what the user names it by. `role` is None for a series that is passed over;
    `reason` says why the role was given, or why not. `study` counts the studies of the folder.
    """

    number: str
    text: str
    study: int
    files: tuple[Path, ...]
    role: str | None
    reason: str

    @property
    def line(self) -> str:
        """One line for the user."""
        what = MODALITY_TITLES[self.role] if self.role else "passed over"
        title = f" '{self.text}'" if self.text else ""
        return f"series {self.number}{title}, {len(self.files)} slices: {what}, {self.reason}"


def find_series(folder: Path, study: int | None = None) -> list[Series]:
    """Return the series of one study in `folder`, of any depth, sorted by number.

    Raises GliosliceError if there is no MR, if there are several studies and `study` (from 1) does
    not choose one, or if a file is truncated.
    """
    if not folder.is_dir():
        what = "is a file; name the folder of its study" if folder.exists() else "no such folder"
        raise GliosliceError(f"{folder}: {what}")
    groups: dict[tuple[str, str], dict[str, dict[str, _File]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    others = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        header = _read_header(path)
        if header is None:
            others += 1
            continue
        person = f"{header.get('PatientID', '')}|{header.get('PatientName', '')}"
        instances = groups[person, str(header.get("StudyInstanceUID", ""))]
        series = instances[str(header.get("SeriesInstanceUID", ""))]
        series.setdefault(str(header.get("SOPInstanceUID", path)), _File(path, header))
    if not groups:
        raise GliosliceError(f"{folder}: holds no MR images ({others} other files)")
    chosen = _choose_study(folder, list(groups), study)
    found = [
        _describe(list(files.values()), chosen) for files in groups[_key(groups, chosen)].values()
    ]
    return sorted(_without_copies(found), key=lambda s: (s.number.zfill(8), s.text))


@dataclass(frozen=True)
class _File:
    path: Path
    header: pydicom.Dataset


def _key(groups: Mapping[tuple[str, str], object], chosen: int) -> tuple[str, str]:
    return sorted(groups)[chosen - 1]


def _choose_study(folder: Path, keys: list[tuple[str, str]], study: int | None) -> int:
    if study is not None and not 1 <= study <= len(keys):
        raise GliosliceError(f"{folder}: there is no --study {study}, the last is {len(keys)}")
    if study is None and len(keys) > 1:
        people = len({person for person, _ in keys})
        raise GliosliceError(
            f"{folder}: holds {len(keys)} studies of {people} patient{'s' if people > 1 else ''}; "
            f"name the folder of one, or choose with --study 1 to {len(keys)}"
        )
    return study or 1


def _read_header(path: Path) -> pydicom.Dataset | None:
    """Return the header of an MR image; None for any other file.

    Raises GliosliceError if a DICOM file is cut short.
    """
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return None
    except READ_ERRORS as error:
        raise GliosliceError(
            f"{path}: the DICOM file is damaged ({error}); copy it again"
        ) from None
    _forget_damaged(header)
    return header if header.get("Modality") == "MR" else None


def _forget_damaged(header: pydicom.Dataset) -> None:
    """Delete the tags of TAGS whose values pydicom, which decodes on use, cannot decode."""
    for keyword in TAGS:
        try:
            header.get(keyword)
        except READ_ERRORS:
            del header[keyword]


def _number(header: pydicom.Dataset, keyword: str) -> float | None:
    numbers = _numbers(header, keyword, 1)
    return None if numbers is None else float(numbers[0])


def _numbers(header: pydicom.Dataset, keyword: str, count: int) -> NDArray[np.float64] | None:
    """Return the numbers of a tag; None unless it holds `count` finite ones."""
    try:
        values = np.atleast_1d(np.array(header.get(keyword), np.float64))  # None becomes NaN
    except (TypeError, ValueError, OverflowError):
        return None
    return values if values.shape == (count,) and np.isfinite(values).all() else None


def _describe(files: Sequence[_File], study: int) -> Series:
    """Return a series with its role, or with the reason why it has none."""
    header = files[0].header
    number = str(header.get("SeriesNumber") or "?")
    text = _text(header)
    ordered, problem = _in_order(files)
    role, reason = None, problem or _not_wanted(header, text, len(files))
    if not reason:
        role, reason = classify(header)
    words = " ".join(str(header.get("SeriesDescription", "")).split())
    shown = "".join(character for character in words if character.isprintable())
    return Series(number, shown, study, tuple(f.path for f in ordered), role, reason)


def _text(header: pydicom.Dataset) -> str:
    keys = ("SeriesDescription", "ProtocolName", "SequenceName")
    return re.sub(r"[_-]+", " ", " ".join(str(header.get(key, "")) for key in keys))


def _values(header: pydicom.Dataset, keyword: str) -> set[str]:
    """Return the values of a tag that may hold one or several, in upper case."""
    value = header.get(keyword) or ()
    return {str(v).upper() for v in ((value,) if isinstance(value, str) else value)}


def _in_order(files: Sequence[_File]) -> tuple[list[_File], str]:
    """Return the files by position along the slice normal, and a problem of the series or ''."""
    if problem := _geometry_problem([f.header for f in files]):
        return list(files), problem
    places = [(_along(f.header), f) for f in files]
    places.sort(key=lambda pair: (pair[0], pair[1].path))
    ordered = [f for _, f in places]
    along = np.array([place for place, _ in places])
    steps = np.diff(along)
    if (steps < 0.01).any():
        volumes = len(along) / len(np.unique(np.round(along, 2)))
        return (
            ordered,
            f"{volumes:.1f} images at each position: perfusion, echoes or a doubled series",
        )
    if steps.size and steps.max() > MAX_GAP * float(np.median(steps)):
        return (
            ordered,
            f"incomplete: {steps.max():.1f} mm between two slices, else {np.median(steps):.1f}",
        )
    expected = _number(files[0].header, "ImagesInAcquisition")
    if expected and len(files) < expected:
        return ordered, f"incomplete: {len(files)} of {expected:.0f} slices"
    return ordered, ""


def _geometry_problem(headers: Sequence[pydicom.Dataset]) -> str:
    """Return why the slices of a series are no volume; '' if they may be one."""
    for keyword, count in GEOMETRY.items():
        if any(_numbers(header, keyword, count) is None for header in headers):
            enhanced = headers[0].get("SOPClassUID") == ENHANCED
            return "an enhanced multi-frame series" if enhanced else f"its {keyword} is unusable"
    turns = {tuple(_placed(header, "ImageOrientationPatient").round(3)) for header in headers}
    if len(turns) > 1:
        return f"slices of {len(turns)} orientations, a localiser"
    sizes = {(*_placed(h, "PixelSpacing").round(4), int(h.Rows), int(h.Columns)) for h in headers}
    if len(sizes) > 1:
        return f"slices of {len(sizes)} sizes"
    return "" if min(min(sizes)) > 0 else "its PixelSpacing is unusable"


def _placed(header: pydicom.Dataset, keyword: str) -> NDArray[np.float64]:
    """Return the numbers of one of GEOMETRY."""
    return np.array(header[keyword].value, np.float64)


def _along(header: pydicom.Dataset) -> float:
    """Return the position of a slice along its normal in mm."""
    orientation = _placed(header, "ImageOrientationPatient")
    normal = np.cross(orientation[:3], orientation[3:])
    return float(normal @ _placed(header, "ImagePositionPatient"))


def _not_wanted(header: pydicom.Dataset, text: str, frames: int) -> str:
    """Return why a series is not an original image of a head; '' if it may be one."""
    kinds = _values(header, "ImageType")
    part = re.sub(r"[\s_/]", "", str(header.get("BodyPartExamined") or "")).upper()
    b_value = _number(header, "DiffusionBValue")
    reasons = (
        (header.get("SOPClassUID") != MR_IMAGE, "a screen capture or other object"),
        (bool(kinds & {"LOCALIZER", "SCOUT"}) or bool(LOCALISER.search(text)), "a localiser"),
        (part not in HEADS, f"it shows {part.lower()}"),
        (b_value is not None or bool(DIFFUSION.search(text)), "a diffusion map"),
        (bool(PERFUSION.search(text)), "perfusion"),
        (bool(kinds & {"SUBTRACT", "SUBTRACTION"}), "a subtraction"),
        (bool(kinds & {"DERIVED", "SECONDARY", "PROJECTION IMAGE", "MPR"}), "derived"),
        (bool(DERIVED.search(text)), "derived, by its description"),
        (bool(kinds & {"P", "PHASE", "PHASE MAP"}), "a phase image"),
        (header.get("AngioFlag") == "Y", "angiography"),
        (frames < MIN_FRAMES, f"only {frames} slices"),
    )
    return next((reason for applies, reason in reasons if applies), "")


def classify(header: pydicom.Dataset) -> tuple[str | None, str]:
    """Return the modality of an original MR image of a head, or None, and why."""
    te, tr, ti = (_number(header, key) for key in ("EchoTime", "RepetitionTime", "InversionTime"))
    text = _text(header)
    if te is not None and te > LONG_ECHO and "GR" in _values(header, "ScanningSequence"):
        return None, f"a gradient echo of TE {te:g}, weighted by T2*"
    weighting, why = _by_timing(te, tr, ti)
    if weighting is None:
        named = [role for role, pattern in TEXTS.items() if pattern.search(text)]
        if not named:
            return None, why or "neither tags nor text name a sequence"
        weighting, why = named[0], "by its description"
    if weighting != "t1":
        return weighting, why
    agent = str(header.get("ContrastBolusAgent") or "").strip()
    if agent and agent.lower() not in ("no", "none", "n"):
        return "t1ce", f"{why}, with contrast agent"
    if CONTRAST.search(text) and not NO_CONTRAST.search(text):
        return "t1ce", f"{why}, contrast by its description"
    return "t1", f"{why}, no contrast agent"


def _by_timing(te: float | None, tr: float | None, ti: float | None) -> tuple[str | None, str]:
    """Return the weighting by echo, repetition and inversion time in ms."""
    if te is None or tr is None:
        return None, "TE or TR is missing"
    why = f"TE {te:g}, TR {tr:g}" + (f", TI {ti:g}" if ti else "")
    if te > 60 and tr > 2000:
        return ("flair", why) if ti and ti > 1200 else ("t2", why)
    short = tr < 1200 or bool(ti and 300 < ti < 1400)
    if te < 30 and short:
        return "t1", why
    return None, f"{why} fit none of T1, T2 and FLAIR"


def _without_copies(found: list[Series]) -> Iterator[Series]:
    """Pass over a series whose middle slice has the pixels of an earlier one."""
    digests: dict[str, str] = {}
    for series in sorted(found, key=lambda s: (s.number.zfill(8), s.files[0])):
        if series.role:
            middle = _read_instance(series.files[len(series.files) // 2])
            data = next((middle[key].value for key in PIXEL_DATA if key in middle), b"")
            content = repr((data, middle.get("ImagePositionPatient")))
            digest = hashlib.sha256(content.encode()).hexdigest()
            if digest in digests:
                reason = f"a copy of series {digests[digest]}"
                yield Series(series.number, series.text, series.study, series.files, None, reason)
                continue
            digests[digest] = series.number
        yield series


def choose_series(
    found: Sequence[Series], wanted: Mapping[str, str], folder: Path
) -> dict[str, Series]:
    """Return the series of each modality; `wanted` names series numbers by modality.

    Raises GliosliceError if a number is unknown, or a modality has two candidates.
    """
    chosen = {}
    for modality, title in MODALITY_TITLES.items():
        if modality in wanted:
            matching = [s for s in found if s.number == wanted[modality] and s.files]
            if len(matching) != 1:
                numbers = ", ".join(s.number for s in found)
                raise GliosliceError(
                    f"{folder}: {len(matching)} series have the number {wanted[modality]}; "
                    f"there are {numbers}"
                )
            chosen[modality] = matching[0]
            continue
        candidates = [s for s in found if s.role == modality and s.number not in wanted.values()]
        if len(candidates) > 1:
            listed = "; ".join(s.line for s in candidates)
            raise GliosliceError(
                f"{folder}: {len(candidates)} candidates for {title}: {listed}. Choose one with "
                f"--{modality} {candidates[0].number}"
            )
        if candidates:
            chosen[modality] = candidates[0]
    if not chosen:
        listed = "; ".join(s.line for s in found)
        raise GliosliceError(f"{folder}: no series of a head with tumour sequences: {listed}")
    return chosen


def convert_series(series: Series, title: str) -> Volume:
    """Return a series as a volume, converted by dcm2niix.

    Raises GliosliceError if an instance is truncated, or dcm2niix makes not one volume of it, or
    one that lies elsewhere than DICOM's tags say.
    """
    import dcm2niix

    name = f"{title}, series {series.number}"
    instances = read_instances(series, title)
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary, "in"), Path(temporary, "out")
        source.mkdir()
        target.mkdir()
        for index, path in enumerate(series.files):
            (source / f"{index:05d}.dcm").symlink_to(path.resolve())
        command = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "s", "-o", target, source]
        done = subprocess.run(command, capture_output=True, check=False)
        volumes = sorted(target.glob("*.nii"))
        if done.returncode or len(volumes) != 1:
            syntax = instances[0].file_meta.TransferSyntaxUID
            compressed = syntax.is_encapsulated or syntax.is_deflated
            hint = f"it is {syntax.name}: export it uncompressed, or " if compressed else ""
            raise GliosliceError(
                f"{name}: dcm2niix made {len(volumes)} volumes of it (code {done.returncode}); "
                f"{hint}name another series"
            )
        try:
            volume = read_volume(volumes[0])
        except GliosliceError as error:
            reason = str(error).removeprefix(f"{volumes[0]}: ")
            raise GliosliceError(f"{name}: {reason}") from None
    distance = corner_distance(series_grid(instances), volume.grid)
    if distance > SAME_PLACE:
        raise GliosliceError(
            f"{name}: dcm2niix places it {distance:.1f} mm from where its tags do; name another "
            "series"
        )
    return volume


def read_instances(series: Series, title: str) -> list[pydicom.Dataset]:
    """Return the instances of a series in order.

    Raises GliosliceError if one is truncated, or their tags do not place them.
    """
    instances: list[pydicom.Dataset] = []
    for path in series.files:
        instance = _read_instance(path)
        try:
            complete = _is_complete(instance)
        except READ_ERRORS:
            complete = False
        if not complete:
            raise GliosliceError(
                f"{path}: this instance of {title} is cut short or lacks tags; copy it again"
            )
        instances.append(instance)
    if problem := _geometry_problem(instances):
        raise GliosliceError(f"{title}, series {series.number}: {problem}; name another series")
    return instances


def _read_instance(path: Path) -> pydicom.Dataset:
    """Return a file with its pixels; raises GliosliceError if it is damaged."""
    try:
        instance = pydicom.dcmread(path)
        _forget_damaged(instance)
        return instance
    except (*READ_ERRORS, InvalidDicomError) as error:
        raise GliosliceError(f"{path}: is cut short or damaged ({error}); copy it again") from None


def _is_complete(instance: pydicom.Dataset) -> bool:
    """Return whether an instance holds as many pixels as its header claims."""
    data = instance.get("PixelData")
    if not data:
        return False
    if instance.file_meta.TransferSyntaxUID.is_encapsulated:
        # The sequence of fragments ends with a delimiter, without which dcmread has failed.
        return len(data) > 16
    bits = int(instance.Rows) * int(instance.Columns) * int(instance.BitsAllocated)
    return len(data) >= bits * int(instance.get("SamplesPerPixel", 1)) // 8


def series_grid(instances: Sequence[pydicom.Dataset]) -> Grid:
    """Return the grid (columns, rows, slices) of a series' instances in order, from DICOM alone."""
    first, last = instances[0], instances[-1]
    along_row, along_column = _placed(first, "ImageOrientationPatient").reshape(2, 3)
    row_spacing, column_spacing = _placed(first, "PixelSpacing")
    start, end = (_placed(i, "ImagePositionPatient") for i in (first, last))
    affine = np.eye(4)
    affine[:3, 0] = along_row * column_spacing
    affine[:3, 1] = along_column * row_spacing
    affine[:3, 2] = (end - start) / max(len(instances) - 1, 1)
    affine[:3, 3] = start
    return Grid((int(first.Columns), int(first.Rows), len(instances)), TO_LPS @ affine)
