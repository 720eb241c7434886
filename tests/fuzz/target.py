"""One process of the fuzzer: atheris watches our modules and feeds the readers until it ends.

    python tests/fuzz/target.py wire -runs=1000 FOLDER       the readers of the wire
    python tests/fuzz/target.py nifti -runs=1000 FOLDER      a reader of files (file_readers.py)

`rounds.py` starts it with libFuzzer's options. It is a process of its own, because atheris has to
instrument modules before anything imports them, and libFuzzer ends the process that it runs in.
"""

import json
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import atheris

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**30,
    1e308,
    float("nan"),
    "",
    "1",
    [],
    {},
    [[]],
)
"""What takes the place of a value of a JSON file."""

BYTES_SHARE = 0.2
"""Share of the mutations of a JSON file that change its bytes, and not a value."""


def mutate_json(data: bytes, longest: int, seed: int) -> bytes:
    """Change a value or a key of a JSON file, which changed bytes would mostly make unreadable."""
    chance = random.Random(seed)
    try:
        root = [json.loads(data)]
    except (ValueError, RecursionError):
        return bytes(atheris.Mutate(data, longest))
    if chance.random() < BYTES_SHARE:
        return bytes(atheris.Mutate(data, longest))
    places = list(_places(root))
    holder, key = chance.choice(places)
    match chance.randrange(5):
        case 0:
            holder[key] = chance.choice(ODD_VALUES)
        case 1:
            other, which = chance.choice(places)
            holder[key] = json.loads(json.dumps(other[which]))
        case 2 if isinstance(holder, dict):
            holder[chance.choice(places)[1] if chance.random() < 0.5 else f"{key}x"] = holder[key]
            del holder[key]
        case 3 if len(holder) > 1:
            del holder[key]
        case _:
            text = atheris.Mutate(str(holder[key]).encode(errors="replace")[:200], 200)
            holder[key] = text.decode(errors="replace")
    return json.dumps(root[0] if root else None).encode()[:longest]


def _places(holder: Any) -> Any:
    """Yield (list or object, index or key) of each value inside, in order."""
    inside = holder.items() if isinstance(holder, dict) else enumerate(holder)
    for key, value in list(inside):
        yield holder, key
        if isinstance(value, dict | list):
            yield from _places(value)


def main(options: list[str]) -> None:
    """Fuzz the reader whose name libFuzzer's options follow; does not return."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    name, mutator = options.pop(0), None
    if name == "wire":
        with atheris.instrument_imports(include=["glioslice.wire"]):
            from tests.fuzz.readers import read_input
    else:
        from tests.fuzz import file_readers

        reader = file_readers.READERS[name]
        with atheris.instrument_imports(include=list(reader.instrumented)):
            for data in reader.first_inputs():  # a reader imports what it needs when it reads
                file_readers.read_input(name, data)
        read_input = partial(file_readers.read_input, name)
        if reader.json:
            mutator = mutate_json
    atheris.Setup([__file__, *options], read_input, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
