"""What `sim://?baud=921600&errors=1e-5&loss=0.005&latency=16ms&unplug=3s` says about a line."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from glioslice.wire.lane import Quality
from glioslice.wire.transport import PortError


def share(text: str) -> float:
    """Return a probability below 1."""
    return bounded(float(text), 0.0, 1.0 - 1e-9)


def seconds(text: str) -> float:
    """Return a time of at most a minute: 16ms, 0.016s or 0.016."""
    if text.endswith("ms"):
        return bounded(float(text.removesuffix("ms")) / 1000, 0.0, 60.0)
    return bounded(float(text.removesuffix("s")), 0.0, 60.0)


def bounded(value: float, low: float, high: float) -> float:
    """Return `value`; ValueError outside `low` to `high`, and for what is no number."""
    if not low <= value <= high:
        raise ValueError
    return value


OPTIONS: dict[str, Callable[[str], float]] = {
    "baud": lambda text: int(bounded(int(text), 50, 100_000_000)),
    "errors": share,
    "loss": share,
    "latency": seconds,
    "unplug": seconds,
    "after": seconds,
    "seed": int,
}


def parse_url(url: str, baud: int) -> Quality:
    """Return what `url` says about the line; it carries `baud` where it names no rate.

    Raises PortError for an option or a value that does not exist.
    """
    values: dict[str, Any] = {"baud": baud}
    for key, text in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if key not in OPTIONS:
            raise PortError(
                f"{url}: no option '{key}'; a simulated line knows {', '.join(OPTIONS)}", "invalid"
            )
        try:
            values[key] = OPTIONS[key](text)
        except ValueError:
            raise PortError(
                f"{url}: '{text}' is no value for {key}; write for instance "
                "sim://?baud=921600&errors=1e-5&loss=0.005&latency=16ms&unplug=3s&seed=3",
                "invalid",
            ) from None
    return Quality(**values)
