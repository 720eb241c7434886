"""Check, without the board, whether a packed int8 file is compatible with it.

A check takes the file's content and a name for it and returns a `TargetResult`.
"""

from collections.abc import Callable, Sequence

from convert.targets import coral, ethos, firmware, micro, pi
from convert.targets.result import TargetResult
from glioslice.errors import GliosliceError

Check = Callable[[bytes, str], TargetResult]

TARGETS: dict[str, Check] = {
    "pi": pi.check,
    "coral": coral.check,
    "micro": micro.check,
    ethos.TARGET: ethos.check,
    "firmware": firmware.check,
}


def choose_targets(options: Sequence[str]) -> tuple[str, ...]:
    """Return the targets that `--target` options name, each option one name or several with commas.

    Raises GliosliceError if one is unknown.
    """
    chosen = tuple(
        dict.fromkeys(part.strip() for text in options for part in text.split(",") if part.strip())
    )
    unknown = [target for target in chosen if target not in TARGETS]
    if unknown:
        raise GliosliceError(f"--target {unknown[0]}: a target is one of {', '.join(TARGETS)}")
    return chosen
