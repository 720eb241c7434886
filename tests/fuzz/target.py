"""One process of the fuzzer: atheris watches `glioslice.wire` and feeds the readers until it ends.

`test_fuzz.py` starts it with libFuzzer's options. It is a process of its own, because atheris has
to instrument modules before anything imports them, and libFuzzer ends the process that it runs in.
"""

import sys
from pathlib import Path

import atheris


def main(options: list[str]) -> None:
    """Fuzz with libFuzzer's options; does not return."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    with atheris.instrument_imports(include=["glioslice.wire"]):
        from tests.fuzz.readers import read_input

    atheris.Setup([__file__, *options], read_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
