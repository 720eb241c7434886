"""The ways up the line do what they say, and the figures of the committed rows are on the page."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import image_codecs
from benchmarks.folds import left_out
from benchmarks.image_baselines import LOSSLESS, OURS, Image, Way, smooth, ways
from benchmarks.image_codecs import (
    EVERY,
    EXACT,
    LARGEST,
    MACHINE,
    MEAN_LOSS,
    PAGE,
    REGION_LOSS,
    Point,
    Row,
    draw,
    is_default,
    page,
    points_of,
    read_rows,
    sent,
    write_rows,
)
from device.engine import Engine
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import shipped
from glioslice.wire.codecs import decode_image, encode_image

WAYS = {f"{way.family}, {way.setting}": way for way in ways()}


@pytest.fixture(scope="module")
def volume() -> Image:
    """Three slices of a noisy ellipse in four modalities, (3, 160, 192, 4)."""
    x, y = np.mgrid[-1:1:160j, -1:1:192j]
    inside = (x**2 + y**2 < 0.6)[..., None]
    smooth = np.stack([30 * np.cos(3 * x * k) + 12 * y for k in range(4)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 2, (3, 160, 192, 4))
    found: NDArray[np.int8] = np.where(inside, np.rint(smooth + noise), -1).astype(np.int8)
    return found


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_slice_comes_back(way: Way, volume: Image) -> None:
    image, before = volume[1], volume[0]
    content = way.encode(image, before)
    back = way.decode(content, before)
    assert back.dtype == np.int8 and back.shape == image.shape
    assert 0 < way.size(content) <= len(content)
    if way.family == LOSSLESS:
        np.testing.assert_array_equal(back, image)
    else:
        assert np.abs(back.astype(int) - image).mean() < 5
        assert way.size(content) < len(encode_image(2, image))


def test_the_first_way_is_the_codec_of_the_wire(volume: Image) -> None:
    first = next(ways())
    content = first.encode(volume[0], volume[0])
    assert content == encode_image(3, volume[0])
    back = first.decode(content, volume[0])
    np.testing.assert_array_equal(back, decode_image(3, content, (160, 192, 4)))


def test_what_is_outside_is_filled_and_nothing_else() -> None:
    levels = np.random.default_rng(0).integers(100, 120, (30, 41, 4)).astype(np.uint8)
    inside = np.zeros((30, 41), np.bool_)
    inside[5:20, 7:30] = True
    filled = smooth(np.where(inside[..., None], levels, 0), inside)
    np.testing.assert_array_equal(filled[inside], levels[inside])
    assert filled.min() >= 100 and filled.max() <= 120
    np.testing.assert_array_equal(smooth(levels, ~inside & inside), levels)


def test_a_lossless_way_that_loses_is_told(volume: Image) -> None:
    broken = Way(LOSSLESS, "broken", lambda *_: b"1", lambda _, before: before)
    engine = Engine(shipped("compact") / "compact-int8.tflite")
    with pytest.raises(GliosliceError, match="broken: a slice did not come back"):
        sent(volume, 1, broken, engine)
    tried = sent(volume, 2, next(ways()), engine)
    assert tried.masks is not None and tried.masks.shape == (2, 160, 192)
    assert tried.sizes.shape == (2,)


def test_rows_become_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Row("a", EXACT, "", EVERY, 122880.0, 0.0, 0.0, 0.9, 0.8, 0.7)
    way = Row("a", OURS, "quality 1", EVERY, 100.0, 3.0, 1.0, 0.8, 0.9, 0.7)
    exactly = Row("a", LOSSLESS, "b", EVERY, 200.0, 3.0, 1.0, None, None, None)
    rows = [exact, replace(exact, case="b"), way, replace(way, case="b", size=300.0), exactly]
    monkeypatch.setattr(image_codecs, "RESULT", tmp_path / "r.csv")
    write_rows(rows)
    assert read_rows() == rows
    lossy, lossless = points_of(rows)
    assert (lossy.size, lossy.encode_ms, len(lossy.gains)) == (200.0, 3.0, 2)
    assert lossy.regions == pytest.approx((-0.1, 0.1, 0.0)) and lossy.mean == pytest.approx(0)
    assert (lossless.size, lossless.gains) == (200.0, ())


def committed() -> list[Point]:
    return points_of(read_rows())


def test_the_default_is_as_small_and_loses_as_little_as_it_may() -> None:
    [chosen] = [one for one in committed() if is_default(one) and one.every == 1]
    assert chosen.size <= LARGEST
    assert chosen.mean >= -MEAN_LOSS
    assert min(chosen.regions) >= -REGION_LOSS
    assert max(chosen.encode_ms, chosen.decode_ms) < 16


def test_the_committed_rows_are_of_all_patients_and_ways_and_on_the_page(tmp_path: Path) -> None:
    rows, points = read_rows(), committed()
    named = {(one.family, one.setting) for one in points}
    assert named == {(way.family, way.setting) for way in ways()}
    every = {name for fold in (1, 2, 3, 4) for name in left_out(fold)}
    for one in points:
        key = (one.family, one.setting, one.every)
        assert {r.case for r in rows if (r.family, r.setting, r.every) == key} == every
    assert page(points, read_json(MACHINE)["machine"]) in PAGE.read_text(encoding="utf-8")
    draw(tmp_path / "images.svg", points)
    picture = PAGE.with_name("images.svg").read_bytes()
    assert (tmp_path / "images.svg").read_bytes() == picture
