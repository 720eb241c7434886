"""Every image codec decodes what it encodes, and the page shows the committed rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import image_codecs
from benchmarks.folds import patients
from benchmarks.image_baselines import (
    LOSSLESS_SETTING,
    WIRE_CODEC,
    CodecSetting,
    Image,
    codec_settings,
    smooth,
)
from benchmarks.image_codecs import (
    EVERY,
    EXACT,
    LARGEST,
    MACHINE,
    MEAN_LOSS,
    PAGE,
    REGION_LOSS,
    ImageRow,
    Point,
    draw_gains,
    is_default,
    make_page,
    make_points,
    read_rows,
    segment_through,
    write_rows,
)
from device.engine import Engine
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import shipped_folder
from glioslice.wire.codecs import decode_image, encode_image

CODECS = {f"{codec.family}, {codec.setting}": codec for codec in codec_settings()}


@pytest.fixture(scope="module")
def volume() -> Image:
    """Three slices of a noisy ellipse in four modalities, (3, 160, 192, 4)."""
    x, y = np.mgrid[-1:1:160j, -1:1:192j]
    inside = (x**2 + y**2 < 0.6)[..., None]
    smooth = np.stack([30 * np.cos(3 * x * k) + 12 * y for k in range(4)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 2, (3, 160, 192, 4))
    found: NDArray[np.int8] = np.where(inside, np.rint(smooth + noise), -1).astype(np.int8)
    return found


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_slice_comes_back(codec: CodecSetting, volume: Image) -> None:
    image, before = volume[1], volume[0]
    content = codec.encode(image, before)
    back = codec.decode(content, before)
    assert back.dtype == np.int8 and back.shape == image.shape
    assert 0 < codec.size(content) <= len(content)
    if codec.family == LOSSLESS_SETTING:
        np.testing.assert_array_equal(back, image)
    else:
        assert np.abs(back.astype(int) - image).mean() < 5
        assert codec.size(content) < len(encode_image(2, image))


def test_the_first_is_the_default_codec_of_the_wire(volume: Image) -> None:
    first = next(codec_settings())
    content = first.encode(volume[0], volume[0])
    assert content == encode_image(3, volume[0])
    back = first.decode(content, volume[0])
    np.testing.assert_array_equal(back, decode_image(3, content, (160, 192, 4)))


def test_only_the_outside_is_filled() -> None:
    to_levels = np.random.default_rng(0).integers(100, 120, (30, 41, 4)).astype(np.uint8)
    inside = np.zeros((30, 41), np.bool_)
    inside[5:20, 7:30] = True
    filled = smooth(np.where(inside[..., None], to_levels, 0), inside)
    np.testing.assert_array_equal(filled[inside], to_levels[inside])
    assert filled.min() >= 100 and filled.max() <= 120
    np.testing.assert_array_equal(smooth(to_levels, ~inside & inside), to_levels)


def test_a_lossless_codec_that_loses_is_an_error(volume: Image) -> None:
    broken = CodecSetting(LOSSLESS_SETTING, "broken", lambda *_: b"1", lambda _, before: before)
    engine = Engine(shipped_folder("compact") / "compact-int8.tflite")
    with pytest.raises(GliosliceError, match="broken: a slice was not restored"):
        segment_through(volume, 1, broken, engine)
    result = segment_through(volume, 2, next(codec_settings()), engine)
    assert result.masks is not None and result.masks.shape == (2, 160, 192)
    assert result.sizes.shape == (2,)


def test_rows_become_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = ImageRow("a", EXACT, "", EVERY, 122880.0, 0.0, 0.0, 0.9, 0.8, 0.7)
    codec = ImageRow("a", WIRE_CODEC, "quality 1", EVERY, 100.0, 3.0, 1.0, 0.8, 0.9, 0.7)
    exactly = ImageRow("a", LOSSLESS_SETTING, "b", EVERY, 200.0, 3.0, 1.0, None, None, None)
    rows = [exact, replace(exact, case="b"), codec, replace(codec, case="b", size=300.0), exactly]
    monkeypatch.setattr(image_codecs, "RESULT", tmp_path / "r.csv")
    write_rows(rows)
    assert read_rows() == rows
    lossy, lossless = make_points(rows)
    assert (lossy.size, lossy.encode_ms, len(lossy.gains)) == (200.0, 3.0, 2)
    assert lossy.regions == pytest.approx((-0.1, 0.1, 0.0)) and lossy.mean == pytest.approx(0)
    assert (lossless.size, lossless.gains) == (200.0, ())


def committed() -> list[Point]:
    return make_points(read_rows())


def test_the_default_is_as_small_and_loses_as_little_as_it_may() -> None:
    [chosen] = [one for one in committed() if is_default(one) and one.every == 1]
    assert chosen.size <= LARGEST
    assert chosen.mean >= -MEAN_LOSS
    assert min(chosen.regions) >= -REGION_LOSS
    assert max(chosen.encode_ms, chosen.decode_ms) < 16


def test_the_page_shows_rows_of_all_patients_and_codecs(tmp_path: Path) -> None:
    rows, points = read_rows(), committed()
    named = {(one.family, one.setting) for one in points}
    assert named == {(codec.family, codec.setting) for codec in codec_settings()}
    every = {row.case for row in rows}
    assert len(every) == 39 and every <= {patient.case for patient in patients()}
    for one in points:
        key = (one.family, one.setting, one.every)
        assert {r.case for r in rows if (r.family, r.setting, r.every) == key} == every
    assert make_page(points, read_json(MACHINE)["machine"]) in PAGE.read_text(encoding="utf-8")
    draw_gains(tmp_path / "images.svg", points)
    picture = PAGE.with_name("images.svg").read_bytes()
    assert (tmp_path / "images.svg").read_bytes() == picture
