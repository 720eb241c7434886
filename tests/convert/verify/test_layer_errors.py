import numpy as np
import pytest

from convert.quantize.strategies import calibrated, quantised
from convert.report import layer_entries, layer_table
from convert.tflite.interpreter import decibels, outputs_of, snr, values_of
from convert.tflite.reader import read_model
from convert.verify.layer_errors import Layer, layers_of, twins
from glioslice.errors import GliosliceError
from tests.convert.breaks import cancelling, plain, skipping, slices
from tests.convert.conftest import WINDOW, random_network
from tests.convert.float_files import FloatFile, of_unet
from training.network import macs, parameters

JUDGED = slices(2, seed=1)


def layers(made: tuple[bytes, dict[int, str]]) -> dict[str, Layer]:
    content, names = made
    int8 = quantised(calibrated(content, slices(8)))
    rows = layers_of(content, int8, JUDGED, names)
    assert sum(row.share for row in rows) == pytest.approx(1)
    return {f"{row.name}: {row.op}": row for row in rows}


def test_decibels() -> None:
    signal = np.array([3.0, 4.0], np.float32)
    assert snr(signal, signal) == float("inf")
    assert snr(signal, np.array([3.0, 4.5], np.float32)) == pytest.approx(20)
    assert np.isnan(snr(signal, np.array([3.0, np.nan], np.float32)))
    assert decibels(0, 1) == -float("inf")


@pytest.mark.slow
def test_the_skip_that_is_too_wide_is_to_blame() -> None:
    healthy, wide = layers(skipping(1)), layers(skipping(50))
    theirs = ("skip: CONV_2D", "lift: CONV_2D", "lift + skip: ADD")
    assert sum(wide[name].share for name in theirs) > 0.75
    assert max(wide, key=lambda name: wide[name].share) in theirs
    assert wide["lift + skip: ADD"].alone < healthy["lift + skip: ADD"].alone - 20
    assert wide["skip: CONV_2D"].high > 10 * healthy["skip: CONV_2D"].high


@pytest.mark.slow
def test_the_error_is_found_where_it_enters_and_not_where_it_shows() -> None:
    """At the skip the wide signal drowns its own error; the ratio falls at the op behind it."""
    found = layers(cancelling())
    assert found["skip: CONV_2D"].snr > 40
    assert found["head: CONV_2D"].snr < 10
    assert found["skip: CONV_2D"].alone < 10
    assert found["skip: CONV_2D"].share + found["lift + skip: ADD"].share > 0.95
    assert found["head: CONV_2D"].share < 0.01


@pytest.mark.slow
def test_ops_that_pass_values_on_are_to_blame_for_nothing() -> None:
    found = layers(skipping(1))
    for name in ("skip: MAX_POOL_2D", "lift: RESIZE_NEAREST_NEIGHBOR"):
        assert (found[name].share, found[name].alone) == (0, float("inf"))
        assert found[name].snr < 60
    assert found["input: INPUT"].share > 0


@pytest.mark.slow
def test_shares_add_up_to_the_error_of_the_file() -> None:
    """Errors of layers are nearly independent: their powers sum to that of the int8 file."""
    content = plain()
    int8 = quantised(calibrated(content, slices(8)))
    rows = layers_of(content, int8, JUDGED, {})
    wanted = outputs_of(content, JUDGED)
    given = np.concatenate([v[max(v)] for v in values_of(int8, JUDGED)])
    together = -10 * np.log10(sum(10 ** (-row.alone / 10) for row in rows))
    assert together == pytest.approx(snr(wanted, given), abs=1)


@pytest.mark.slow
def test_clipped_counts_what_calibration_did_not_see() -> None:
    content = plain()
    quiet = quantised(calibrated(content, slices(8, reach=0.5)))
    rows = layers_of(content, quiet, JUDGED, {})
    assert rows[0].clipped == pytest.approx(0.5, abs=0.02)  # uniform in -1 to 1, held to half
    loud = layers_of(content, quantised(calibrated(content, slices(64))), JUDGED, {})
    assert loud[0].clipped == 0
    assert loud[0].low == pytest.approx(-1, abs=0.01)


@pytest.mark.slow
def test_bytes_and_macs_are_those_of_the_network() -> None:
    network = random_network((4, 6))
    content = of_unet(network, WINDOW)
    given = np.random.default_rng(0).normal(0, 1, (2, *WINDOW, 4)).astype(np.float32)
    rows = layers_of(content, quantised(calibrated(content, given)), given, {})
    assert sum(row.macs for row in rows) == macs(network, WINDOW)
    outputs = sum(row.shape[-1] for row in rows if row.op == "CONV_2D")
    sizes = 8  # the two int32 that say how large a resize makes its output
    # A weight is a byte, a bias four; each output has a scale for its weights and one for its bias.
    assert sum(row.bytes for row in rows) == parameters(network) + (3 + 4 + 4) * outputs + sizes
    assert rows[0].op == "INPUT"


@pytest.mark.slow
def test_files_of_two_networks_are_refused() -> None:
    int8 = quantised(calibrated(plain(), slices(2)))
    with pytest.raises(GliosliceError, match="other ops"):
        layers_of(skipping(1)[0], int8, JUDGED, {})
    assert len(twins(read_model(plain()), read_model(int8))) == 3


@pytest.mark.slow
def test_what_stays_float_in_the_int8_file_is_measured_too() -> None:
    """An op without int8 kernel stands between a DEQUANTIZE and a QUANTIZE."""
    made, rng = FloatFile((16, 16, 4)), np.random.default_rng(0)
    x = made.conv(made.input, rng.normal(0, 1, (8, 1, 1, 4)), np.ones(8))
    x = made.unary(x, "ELU")
    content = made.file(made.conv(x, rng.normal(0, 1, (1, 1, 1, 8)), [0.0], relu=False))
    given = slices(8)[:, :16, :16]
    int8 = quantised(calibrated(content, given))
    rows = layers_of(content, int8, given[:2], {})
    assert [row.op for row in rows] == ["INPUT", "CONV_2D", "ELU", "CONV_2D"]
    assert all(np.isfinite([row.low, row.high, row.clipped, row.share]).all() for row in rows)
    assert sum(row.share for row in rows) == pytest.approx(1)


def test_table_and_report_hold_what_is_finite() -> None:
    rows = (
        Layer(0, "INPUT", "input", (8, 8, 4), -5.0, 5.0, 0.0, 48.123, 47.0, 0.25, 0, 0),
        Layer(1, "ADD", "a + b", (8, 8, 4), 0.0, 2.0, 0.012, float("inf"), float("inf"), 0, 9, 8),
    )
    table = layer_table(rows)
    assert "1.200%" in table
    assert "25.0%" in table
    assert "inf" not in table
    entries = layer_entries(rows)
    assert entries[0]["snr"] == 48.1
    assert entries[1]["snr"] is None
    assert entries[1]["shape"] == (8, 8, 4)
