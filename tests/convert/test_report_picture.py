from xml.etree import ElementTree

from convert.report import picture
from convert.verify.layer_errors import Layer

LAYERS = tuple(
    Layer(i, op, name, (8, 8, 2), -1.0, 2.0, 0.01, snr, 30.0, 0.5, 100 * i, 1000)
    for i, (op, name, snr) in enumerate(
        [("INPUT", "input", float("inf")), ("CONV_2D", "encoder.0.0", 20.5), ("ADD", "a + b", 18.0)]
    )
)


def test_the_same_layers_give_the_same_picture() -> None:
    one = picture("tiny", LAYERS)
    assert one == picture("tiny", LAYERS)
    assert one != picture("tiny", LAYERS[:2])
    root = ElementTree.fromstring(one)
    assert root.tag.endswith("svg")
    text = " ".join(part.text or "" for part in root.iter() if part.tag.endswith("text"))
    assert "encoder.0.0" in text
    assert "bytes" in text
