"""The layers of a network as one picture: where the error is, and where the bytes are."""

from collections.abc import Sequence
from io import BytesIO
from math import isfinite
from typing import Any

from convert.layers import Layer

ERROR, SHARE, BYTES = "#0072b2", "#d55e00", "#7f7f7f"  # told apart by all eyes


def picture(name: str, layers: Sequence[Layer]) -> bytes:
    """Return an SVG of error and bytes along the network; the same layers give the same bytes."""
    from matplotlib.figure import Figure

    places = range(len(layers))
    figure = Figure(figsize=(1.5 + 0.3 * len(layers), 6))
    error, cost = figure.subplots(2, 1, sharex=True)
    known = [place for place in places if isfinite(layers[place].snr)]
    error.plot(known, [layers[i].snr for i in known], color=ERROR, marker="o", ms=3, lw=1)
    error.set_ylabel("int8 against float, dB", color=ERROR)
    error.set_title(f"{name}: error and bytes along the network", fontsize=10)
    error.grid(axis="y", alpha=0.3)
    share = error.twinx()
    share.bar(places, [100 * layer.share for layer in layers], color=SHARE, alpha=0.6, width=0.6)
    share.set_ylabel("share of the error at the logits, %", color=SHARE)
    cost.bar(places, [layer.bytes for layer in layers], color=BYTES, width=0.6)
    cost.set_ylabel("bytes")
    cost.grid(axis="y", alpha=0.3)
    labels = [f"{layer.name}  {layer.op.lower()}" for layer in layers]
    cost.set_xticks(list(places), labels, rotation=90, fontsize=7)
    return svg(figure)


def svg(figure: Any) -> bytes:
    """Return a matplotlib figure as SVG; its usual ids and date would change from run to run."""
    import matplotlib as mpl

    content = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "glioslice", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return content.getvalue()
