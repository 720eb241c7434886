"""What is said of a finished volume: latency and volumes."""

from collections.abc import Mapping, Sequence

import numpy as np


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p90 and p99 of the milliseconds that slices took."""
    p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99))
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99)}


def dice_line(scores: Mapping[str, float]) -> str:
    """Return the Dice of a volume against an expert's mask."""
    return "Dice against its truth: " + "  ".join(f"{k} {v:.3f}" for k, v in scores.items())


def summary_lines(
    slices: int, milliseconds: Sequence[float], volumes_ml: Mapping[str, float]
) -> list[str]:
    """Return the summary of a volume, a line each for latency and volumes."""
    latency = "  ".join(f"{name} {ms:.2f}" for name, ms in percentiles(milliseconds).items())
    volumes = "  ".join(f"{region} {ml:.1f}" for region, ml in volumes_ml.items())
    return [
        f"{slices} slices, milliseconds a slice: {latency}",
        f"volumes in mL: {volumes}",
        "Research software, no medical device: not for diagnosis or treatment.",
    ]
