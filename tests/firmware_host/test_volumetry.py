"""Volumes and diameters, slice by slice, and the use of the link."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from firmware_host.mask_volume import MaskVolume
from firmware_host.progress import LinkUtilisation, link_baud
from firmware_host.volumetry import Volumetry, diameter_mm, slices_csv
from glioslice.metrics import volumes_ml
from glioslice.preprocessing import Crop
from glioslice.wire.codecs import encode_mask
from glioslice.wire.link import Counts
from glioslice.wire.messages import Error, ErrorCode, Mask, Mode


def disc(radius: float) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    x, y = np.mgrid[-40:41, -40:41]
    return np.asarray(x**2 + y**2 <= radius**2)


@pytest.mark.parametrize("radius", [3, 10, 25, 33.3])
def test_the_diameter_of_a_disc(radius: float) -> None:
    assert diameter_mm(disc(radius)) == pytest.approx(2 * radius + 1, abs=1.0)


def test_the_diameter_of_corners() -> None:
    region = np.zeros((30, 40), np.bool_)
    assert diameter_mm(region) == 0.0
    region[4, 7] = True
    assert diameter_mm(region) == 1.0
    region[4 + 12, 7 + 16] = True  # two parts, 20 apart
    assert diameter_mm(region) == 1.0
    region[5, 8] = True  # touches at a corner
    assert diameter_mm(region) == pytest.approx(1 + math.sqrt(2))


def parts_of(points: set[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """Return the pixels part by part by following neighbours."""
    found, left = [], set(points)
    while left:
        part, edge = set(), {left.pop()}
        while edge:
            part |= edge
            edge = {
                p for p in left if any(max(abs(p[0] - q[0]), abs(p[1] - q[1])) < 2 for q in edge)
            }
            left -= edge
        found.append(part)
    return found


@given(arrays(np.bool_, (9, 12), elements=st.booleans()))
def test_the_diameter_is_that_of_the_farthest_pair_in_a_part(
    region: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
) -> None:
    parts = parts_of({(int(x), int(y)) for x, y in np.argwhere(region)})
    farthest = max((math.dist(a, b) + 1 for part in parts for a in part for b in part), default=0.0)
    assert diameter_mm(region) == pytest.approx(farthest)


def received() -> MaskVolume:
    """A run of four slices: two masks, one failure, one missing; its window reaches outside."""
    masks = MaskVolume(Mode.SERVE, "webp", Crop((20, 20, 9), (-4, 2), (3, 7), (16, 16)))
    mask = np.zeros((16, 16), np.uint8)
    mask[2:10, 5:9] = 2  # its first two columns of X lie outside the volume
    mask[6:8, 6:8] = 3
    for index in (2, 0):
        masks.add(Mask(index, 1, 1500 + index, encode_mask(1, mask)))
    masks.add_failure(Error(ErrorCode.ENGINE, 1, "the network failed"))
    return masks


def test_the_totals_are_those_of_the_volume() -> None:
    masks = received()
    volumetry = Volumetry().update(masks)
    assert volumetry.volumes_ml() == volumes_ml(masks.labels())
    assert volumetry.volumes_ml()["WT"] == 2 * 6 * 4 / 1000
    assert volumetry.diameters_mm() == {"WT": round(math.hypot(5, 3) + 1, 1), "TC": 2.4, "ET": 2.4}
    masks.reset()
    assert volumetry.update(masks).volumes_ml() == {"WT": 0.0, "TC": 0.0, "ET": 0.0}


def test_a_mask_received_again_replaces_the_first() -> None:
    masks, volumetry = received(), Volumetry()
    volumetry.update(masks)
    masks.reset()
    masks.add(Mask(0, 1, 1500, encode_mask(1, np.zeros((16, 16), np.uint8))))
    assert volumetry.update(masks).volumes_ml()["WT"] == 0.0


def test_the_csv_of_slices() -> None:
    masks = received()
    lines = slices_csv(masks, Volumetry().update(masks)).splitlines()
    assert lines[0] == "slice,state,WT_ml,TC_ml,ET_ml,WT_mm,TC_mm,ET_mm,device_ms,quality"
    assert lines[1] == "4,mask,0.024,0.004,0.004,6.8,2.4,2.4,1.500,"
    assert lines[2] == "5,failed,,,,,,,,"
    assert lines[4] == "7,missing,,,,,,,,"
    assert {line.count(",") for line in lines} == {9}


def test_link_utilisation() -> None:
    now, counts = 0.0, Counts()
    use = LinkUtilisation(lambda: counts, lambda: now)
    assert use.measure(115200)["use"] == 0.0
    for _ in range(8):
        now += 0.5
        counts = Counts(bytes_sent=counts.bytes_sent + 2880, bytes_received=0)
        seen = use.measure(115200)
    assert seen == {"baud": 115200, "up": 5760, "down": 0, "use": 0.5}
    now += 2.0
    assert use.measure(None)["use"] is None
    now += 2.0
    assert use.measure(115200)["up"] == 0


def test_the_baud_rate_of_a_link() -> None:
    assert link_baud("/dev/ttyUSB0", None, 921600) == 921600
    assert link_baud("/dev/ttyUSB0", 115200, None) == 115200
    assert link_baud("socket://pi:4000", None, None) is None
    assert link_baud("sim://?baud=57600&loss=0.1", None, 921600) == 57600
    assert link_baud("sim://", None, 921600) == 921600
