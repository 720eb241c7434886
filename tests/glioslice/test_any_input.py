"""Whatever lies in a file, reading it gives a result or one GliosliceError, never a traceback.

The fast tests of the kinds of files that people have; `tests/fuzz` makes up bytes.
"""

import gzip
import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glioslice.cases import MODALITIES, read_case
from glioslice.dataset_layouts import decathlon_case, recognise
from glioslice.errors import GliosliceError
from glioslice.model_card import CARD, read_card
from glioslice.nifti import open_nifti, read_nifti
from tests.conftest import LPS, ROOT, Write

ANY = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

FIELDS = st.sampled_from(
    [
        *(("<h", 40 + 2 * n) for n in range(8)),  # dim
        ("<h", 70), ("<h", 72),  # datatype, bitpix
        *(("<f", 76 + 4 * n) for n in range(8)),  # pixdim
        ("<f", 108), ("<f", 112), ("<f", 116),  # vox_offset, slope, intercept
        ("<h", 252), ("<h", 254),  # qform and sform codes
        *(("<f", 256 + 4 * n) for n in range(18)),  # quaternion, offsets, affine
        ("<i", 0), ("<i", 344),  # size of the header, magic
    ]
)  # fmt: skip
SHORTS = st.one_of(st.sampled_from([-1, 0, 1, 2, 3, 4, 8, 16, 32, 64, 128, 512, 1536]),
                   st.integers(-32768, 32767))  # fmt: skip
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 352.0, 1e-40, 1e38, float("inf"), float("nan")]),
    st.floats(width=32),
)


@st.composite
def header_changes(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Changes of fields of a header: (position, bytes)."""
    changes = []
    for kind, place in draw(st.lists(FIELDS, min_size=1, max_size=4)):
        value = draw(FLOATS if kind == "<f" else SHORTS)
        changes.append((place, struct.pack(kind, value)))
    return changes


@pytest.fixture(scope="module")
def nifti_bytes() -> bytes:
    voxels = np.arange(1, 5 * 6 * 7 + 1, dtype=np.int16).reshape(5, 6, 7)
    return bytes(nib.Nifti1Image(voxels, LPS).to_bytes())


def result_or_line(read: Callable[[], Any]) -> Any:
    """Return what `read` returns, or None after a GliosliceError of one line."""
    try:
        return read()
    except GliosliceError as error:
        assert str(error)
        assert "\n" not in str(error)
        return None


@given(changes=header_changes(), compressed=st.booleans())
@ANY
def test_any_header(
    changes: list[tuple[int, bytes]], compressed: bool, nifti_bytes: bytes, tmp_path: Path
) -> None:
    content = bytearray(nifti_bytes)
    for place, value in changes:
        content[place : place + len(value)] = value
    path = tmp_path / "any.nii.gz"
    path.write_bytes(gzip.compress(content, 1) if compressed else content)
    found = result_or_line(lambda: read_nifti(path))
    if found is not None:
        voxels, space = found
        assert voxels.shape == (1, *space.lps_shape)
        assert np.isfinite(voxels).all()
        assert np.abs(np.linalg.det(space.affine[:3, :3])) == pytest.approx(1, abs=0.1)


@given(kept=st.integers(0, 700), added=st.binary(max_size=40), compressed=st.booleans())
@ANY
def test_any_bytes(
    kept: int, added: bytes, compressed: bool, nifti_bytes: bytes, tmp_path: Path
) -> None:
    content = gzip.compress(nifti_bytes, 1, mtime=0) if compressed else nifti_bytes
    path = tmp_path / "any.nii.gz"
    path.write_bytes(content[:kept] + added)
    result_or_line(lambda: read_nifti(path))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.text(max_size=8),
              st.sampled_from(["FLAIR", "T1w", "t1gd", "T2w", "edema", "enhancing", "necrosis"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.sampled_from(["0", "1", "2", "3", "edema", "TC", "WT", "x"]), inner),
    ),
    max_leaves=12,
)  # fmt: skip


DATASET = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("modality", "channel_names", "labels"), JSON)
)
CARDS = st.dictionaries(st.sampled_from(["name", "input", "output", "training", "files"]), JSON)


@given(content=DATASET)
@ANY
def test_any_dataset_json(content: dict[str, Any], tmp_path: Path) -> None:
    image = tmp_path / "imagesTr" / "A.nii.gz"
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    files = result_or_line(lambda: decathlon_case(image))
    if files is not None:
        assert sorted(files.order) == ["flair", "t1", "t1ce", "t2"]


@given(content=st.binary(max_size=60))
@ANY
def test_any_bytes_as_dataset_json(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(content)
    result_or_line(lambda: decathlon_case(tmp_path / "imagesTr" / "A.nii.gz"))


@given(content=CARDS)
@ANY
def test_any_card(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / CARD).write_text(json.dumps(content))
    result_or_line(lambda: read_card(tmp_path))


@given(st.text(max_size=30))
@ANY
def test_any_name(name: str) -> None:
    recognised = recognise(Path(name.replace("/", "") + ".nii.gz"))
    assert recognised is None or recognised[1] in ("flair", "t1", "t1ce", "t2", "seg")


CHANGES = st.lists(
    st.tuples(st.integers(0, 27), st.integers(0, 35), st.integers(0, 19), st.floats(width=32)),
    max_size=6,
)


@given(changes=CHANGES)
@settings(ANY, max_examples=15)
def test_any_voxels(
    changes: list[tuple[int, int, int, float]], write_case: Write, tmp_path: Path
) -> None:
    folder = write_case()
    path = folder / "Case_1_t2.nii.gz"
    image = nib.Nifti1Image.from_filename(path)
    voxels = np.asarray(image.dataobj).copy()
    for x, y, z, value in changes:
        voxels[x, y, z] = value
    nib.save(nib.Nifti1Image(voxels, image.affine), path)
    case = result_or_line(lambda: read_case(folder))
    assert (case is not None) == bool(np.isfinite(voxels).all())


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    """A small file may claim gigabytes; nothing of them is read or allocated."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((1000, 1000, 1000))
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(20_000_000), 9))
    with pytest.raises(GliosliceError, match="a head has at 1 mm"):
        open_nifti(path)


MOST_MB, MOST_SECONDS = 600, 10


def limit_process() -> None:
    """Let an allocation beyond the memory fail, and end the process after the seconds."""
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MB << 20, MOST_MB << 20))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))


def check_limited(*options: object) -> subprocess.CompletedProcess[str]:
    """Run `glioslice check` within the memory and the seconds."""
    command = [sys.executable, "-m", "glioslice.check", *map(str, options)]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | threads, preexec_fn=limit_process, text=True,
        capture_output=True, timeout=20 * MOST_SECONDS,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_the_largest_volumes_within_the_memory_and_the_time(
    dtype: type[np.number[Any]], tmp_path: Path
) -> None:
    shape = (320, 320, 240)  # MAX_VOXELS is just above
    header = nib.Nifti1Image(np.zeros((1, 1, 1), dtype), LPS).header
    header.set_data_shape(shape)
    plane = np.zeros(shape[:2], dtype)
    plane[90:230, 80:250] = 100
    plane[90::7, 80:250] += 3
    path = tmp_path / "any.nii.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + b"\0" * 4)
        for level in range(shape[2]):
            file.write(plane.tobytes("F") if 50 <= level < 190 else bytes(plane.nbytes))
    files = [word for modality in MODALITIES for word in (f"--{modality}", path)]
    done = check_limited(*files)
    assert done.returncode == 2 or "warning" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr and done.returncode in (0, 2), done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("places", "content"),
    [
        ({42: 32767, 44: 32767, 46: 32767}, b""),  # three sides of 32,767 voxels
        ({42: 8000, 44: 3000, 46: 1}, bytes(48_000_000)),  # a slice of the largest size
        ({40: 7, 50: 32767, 52: 32767, 54: 32767}, b""),
    ],
)
def test_a_header_that_claims_much(
    places: dict[int, int], content: bytes, nifti_bytes: bytes, tmp_path: Path
) -> None:
    damaged = bytearray(nifti_bytes)
    for place, value in places.items():
        damaged[place : place + 2] = struct.pack("<h", value)
    path = tmp_path / "any.nii.gz"
    path.write_bytes(gzip.compress(bytes(damaged) + content, 1))
    done = check_limited(*[word for m in MODALITIES for word in (f"--{m}", path)])
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr[-2000:]
