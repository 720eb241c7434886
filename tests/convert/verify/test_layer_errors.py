import numpy as np
import pytest

from convert.quantization import calibrate, quantize_file
from convert.tflite.interpreter import decibels, output_values, snr, tensor_values
from convert.tflite.reader import read_model
from convert.verify.layer_errors import Layer, matching_tensors, measure_layers
from glioslice.errors import GliosliceError
from tests.convert.conftest import WINDOW, random_network
from tests.convert.float_files import FloatFile, of_unet
from tests.convert.hard_networks import cancelling, plain, skipping, slices
from training.network import count_macs, count_parameters

PROBES = slices(2, seed=1)


def layers(made: tuple[bytes, dict[int, str]]) -> dict[str, Layer]:
    content, names = made
    int8 = quantize_file(calibrate(content, slices(8)))
    rows = measure_layers(content, int8, PROBES, names)
    assert sum(row.share for row in rows) == pytest.approx(1)
    return {f"{row.name}: {row.op}": row for row in rows}


def test_decibels() -> None:
    signal = np.array([3.0, 4.0], np.float32)
    assert snr(signal, signal) == float("inf")
    assert snr(signal, np.array([3.0, 4.5], np.float32)) == pytest.approx(20)
    assert np.isnan(snr(signal, np.array([3.0, np.nan], np.float32)))
    assert decibels(0, 1) == -float("inf")


@pytest.mark.slow
def test_a_skip_that_is_too_wide_has_the_largest_share() -> None:
    healthy, wide = layers(skipping(1)), layers(skipping(50))
    theirs = ("skip: CONV_2D", "lift: CONV_2D", "lift + skip: ADD")
    assert sum(wide[name].share for name in theirs) > 0.75
    assert max(wide, key=lambda name: wide[name].share) in theirs
    assert wide["lift + skip: ADD"].alone < healthy["lift + skip: ADD"].alone - 20
    assert wide["skip: CONV_2D"].high > 10 * healthy["skip: CONV_2D"].high


@pytest.mark.slow
def test_the_error_is_found_where_it_arises_and_not_where_it_shows() -> None:
    """At the skip the wide signal drowns its own error; the ratio falls at the op behind it."""
    found = layers(cancelling())
    assert found["skip: CONV_2D"].snr > 40
    assert found["head: CONV_2D"].snr < 10
    assert found["skip: CONV_2D"].alone < 10
    assert found["skip: CONV_2D"].share + found["lift + skip: ADD"].share > 0.95
    assert found["head: CONV_2D"].share < 0.01


@pytest.mark.slow
def test_ops_that_copy_values_have_no_share() -> None:
    found = layers(skipping(1))
    for name in ("skip: MAX_POOL_2D", "lift: RESIZE_NEAREST_NEIGHBOR"):
        assert (found[name].share, found[name].alone) == (0, float("inf"))
        assert found[name].snr < 60
    assert found["input: INPUT"].share > 0


@pytest.mark.slow
def test_shares_add_up_to_the_error_of_the_file() -> None:
    """Errors of layers are nearly independent: their powers sum to that of the int8 file."""
    content = plain()
    int8 = quantize_file(calibrate(content, slices(8)))
    rows = measure_layers(content, int8, PROBES, {})
    wanted = output_values(content, PROBES)
    given = np.concatenate([v[max(v)] for v in tensor_values(int8, PROBES)])
    together = -10 * np.log10(sum(10 ** (-row.alone / 10) for row in rows))
    assert together == pytest.approx(snr(wanted, given), abs=1)


@pytest.mark.slow
def test_clipped_counts_values_that_calibration_did_not_see() -> None:
    content = plain()
    quiet = quantize_file(calibrate(content, slices(8, reach=0.5)))
    rows = measure_layers(content, quiet, PROBES, {})
    assert rows[0].clipped == pytest.approx(0.5, abs=0.02)  # uniform in -1 to 1, held to half
    loud = measure_layers(content, quantize_file(calibrate(content, slices(64))), PROBES, {})
    assert loud[0].clipped == 0
    assert loud[0].low == pytest.approx(-1, abs=0.01)


@pytest.mark.slow
def test_bytes_and_macs_are_those_of_the_network() -> None:
    network = random_network((4, 6))
    content = of_unet(network, WINDOW)
    given = np.random.default_rng(0).normal(0, 1, (2, *WINDOW, 4)).astype(np.float32)
    rows = measure_layers(content, quantize_file(calibrate(content, given)), given, {})
    assert sum(row.macs for row in rows) == count_macs(network, WINDOW)
    outputs = sum(row.shape[-1] for row in rows if row.op == "CONV_2D")
    sizes = 8  # the two int32 that hold the size of a resize's output
    # A weight is a byte, a bias four; each output has a scale for its weights and one for its bias.
    assert (
        sum(row.bytes for row in rows) == count_parameters(network) + (3 + 4 + 4) * outputs + sizes
    )
    assert rows[0].op == "INPUT"


@pytest.mark.slow
def test_files_of_two_networks_are_rejected() -> None:
    int8 = quantize_file(calibrate(plain(), slices(2)))
    with pytest.raises(GliosliceError, match="other ops"):
        measure_layers(skipping(1)[0], int8, PROBES, {})
    assert len(matching_tensors(read_model(plain()), read_model(int8))) == 3


@pytest.mark.slow
def test_ops_without_an_int8_kernel_are_measured_too() -> None:
    """An op without int8 kernel stands between a DEQUANTIZE and a QUANTIZE."""
    made, rng = FloatFile((16, 16, 4)), np.random.default_rng(0)
    x = made.conv(made.input, rng.normal(0, 1, (8, 1, 1, 4)), np.ones(8))
    x = made.unary(x, "ELU")
    content = made.file(made.conv(x, rng.normal(0, 1, (1, 1, 1, 8)), [0.0], relu=False))
    given = slices(8)[:, :16, :16]
    int8 = quantize_file(calibrate(content, given))
    rows = measure_layers(content, int8, given[:2], {})
    assert [row.op for row in rows] == ["INPUT", "CONV_2D", "ELU", "CONV_2D"]
    assert all(np.isfinite([row.low, row.high, row.clipped, row.share]).all() for row in rows)
    assert sum(row.share for row in rows) == pytest.approx(1)
