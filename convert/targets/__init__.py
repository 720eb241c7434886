"""Whether a packed int8 file suits a board, checked as far as it can be without that board.

A check takes the file's content and a name for it and gives an `Outcome`.
"""

from collections.abc import Callable, Sequence

from convert.targets import coral, ethos, micro, pi
from convert.targets.result import Outcome
from glioslice.errors import GliosliceError

Check = Callable[[bytes, str], Outcome]

TARGETS: dict[str, Check] = {
    "pi": pi.check,
    "coral": coral.check,
    "micro": micro.check,
    ethos.TARGET: ethos.check,
}


def chosen_targets(asked: Sequence[str]) -> tuple[str, ...]:
    """Return the targets of one or several `--target`, each of one name or more with commas.

    Raises GliosliceError if one is unknown.
    """
    chosen = tuple(
        dict.fromkeys(part.strip() for text in asked for part in text.split(",") if part.strip())
    )
    unknown = [target for target in chosen if target not in TARGETS]
    if unknown:
        raise GliosliceError(f"--target {unknown[0]}: a target is one of {', '.join(TARGETS)}")
    return chosen
