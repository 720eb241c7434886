"""Test-time augmentation by mirroring: two runs of the network, added as integers."""

from pathlib import Path

import numpy as np
import pytest

from device.board import load_played_case, make_board
from device.confidence import mask_confidence
from device.engine import Engine
from glioslice.files import read_json, write_json
from glioslice.labels import to_labels
from glioslice.model_card import CARD, shipped_folder
from glioslice.wire.messages import HostHello, Mode, Start
from tests.device.conftest import MODEL, Slab, StartBoard, decoded


@pytest.fixture(scope="module")
def single() -> Engine:
    return Engine(shipped_folder("nano") / MODEL, mirroring=False)


@pytest.fixture(scope="module")
def mirroring() -> Engine:
    return Engine(shipped_folder("nano") / MODEL, mirroring=True)


def test_the_card_decides_and_an_option_overrides_it(tmp_path: Path) -> None:
    model = tmp_path / MODEL
    model.write_bytes((shipped_folder("nano") / MODEL).read_bytes())
    card = read_json(shipped_folder("nano") / CARD)
    for value in (True, False):
        card["output"]["mirroring"] = value
        write_json(tmp_path / CARD, card)
        assert Engine(model).mirroring is value
        assert not Engine(model, mirroring=False).mirroring
        assert make_board(Engine(model), model).hello.mirroring is value


def test_logits_are_the_sum_of_both_runs(single: Engine, mirroring: Engine, patient: Slab) -> None:
    scale, zero_point = single.output.scale, single.output.zero_point
    assert (mirroring.logit_scale, mirroring.logit_zero_point) == (scale / 2, 2 * zero_point)
    changed = 0
    for one in patient.z_scores[::4]:
        prepared = single.prepare(one)
        plain, back = single.invoke(prepared), single.invoke(prepared[::-1])[::-1]
        total = mirroring.logits(prepared)
        assert total.dtype == np.int16
        np.testing.assert_array_equal(total, plain.astype(int) + back)
        above = np.moveaxis(plain.astype(int) + back > 2 * zero_point, -1, 0)
        np.testing.assert_array_equal(mirroring.regions(total), above)
        changed += int((above != single.regions(plain)).sum())
        confidence = mask_confidence(total, mirroring.logit_scale, mirroring.logit_zero_point)
        assert abs(confidence - mask_confidence(plain, scale, zero_point)) < 60
    assert changed > 0


def test_a_mirrored_slice_has_the_mirrored_mask(mirroring: Engine, patient: Slab) -> None:
    for one in patient.z_scores[::4]:
        np.testing.assert_array_equal(mirroring.run(one[::-1]), mirroring.run(one)[:, ::-1])


def test_the_confidence_of_twice_the_logits_is_that_of_the_logits() -> None:
    logits = np.random.default_rng(0).integers(-128, 128, (40, 50, 3)).astype(np.int8)
    for zero_point in (-128, -5, 100, 127):
        once = mask_confidence(logits, 0.0390625, zero_point)
        twice = mask_confidence(logits.astype(np.int16) * 2, 0.0390625 / 2, 2 * zero_point)
        assert once == twice


def test_a_float_network_takes_the_mean(patient: Slab) -> None:
    file = shipped_folder("nano") / "nano-fp16.tflite"
    plain, both = Engine(file, mirroring=False), Engine(file, mirroring=True)
    prepared = plain.prepare(patient.z_scores[8])
    expected = (plain.invoke(prepared) + plain.invoke(prepared[::-1])[::-1]) / 2
    np.testing.assert_allclose(both.logits(prepared), expected, atol=1e-6)
    assert both.logit_zero_point == 0


def test_a_board_sends_mirrored_masks_and_says_so(
    start: StartBoard, mirroring: Engine, patient: Slab, stored_case: Path
) -> None:
    model = shipped_folder("nano") / MODEL
    host = start(make_board(mirroring, model, load_played_case(stored_case, mirroring))).host()
    assert host.connect().mirroring
    host.send(HostHello(Mode.PLAY, 0, 3))
    assert isinstance(host.receive(), Start)
    masks, errors, _ = host.receive_run()
    assert errors == []
    expected = [to_labels(mirroring.run(one)) for one in patient.z_scores]
    np.testing.assert_array_equal(decoded(masks, mirroring.card.window), expected)


def test_a_board_names_what_its_case_lacks(
    start: StartBoard, engine: Engine, stored_case: Path
) -> None:
    played = load_played_case(stored_case, engine, ("t1", "flair"))
    host = start(make_board(engine, shipped_folder("nano") / MODEL, played)).host()
    host.connect()
    host.send(HostHello(Mode.PLAY, 0, 3))
    message = host.receive()
    assert isinstance(message, Start) and message.absent == 0b0011
    zero = engine.input.zero_point
    assert (played.slices[..., :2] == zero).all() and (played.slices[..., 2:] != zero).any()
