from xml.etree import ElementTree

from convert.report import draw_layers, layer_entries, layer_table
from convert.verify.layer_errors import Layer

LAYERS = tuple(
    Layer(i, op, name, (8, 8, 2), -1.0, 2.0, 0.01, snr, 30.0, 0.5, 100 * i, 1000)
    for i, (op, name, snr) in enumerate(
        [("INPUT", "input", float("inf")), ("CONV_2D", "encoder.0.0", 20.5), ("ADD", "a + b", 18.0)]
    )
)


def test_the_same_layers_give_the_same_bytes() -> None:
    one = draw_layers("tiny", LAYERS)
    assert one == draw_layers("tiny", LAYERS)
    assert one != draw_layers("tiny", LAYERS[:2])
    root = ElementTree.fromstring(one)
    assert root.tag.endswith("svg")
    text = " ".join(part.text or "" for part in root.iter() if part.tag.endswith("text"))
    assert "encoder.0.0" in text
    assert "bytes" in text


def test_infinite_ratios_are_left_out() -> None:
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
