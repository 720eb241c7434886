"""One process of the fuzzer: atheris watches our modules and feeds the readers until it ends.

    python tests/fuzz/target.py -runs=1000 FOLDER            the readers of the wire
    python tests/fuzz/target.py nifti -runs=1000 FOLDER      a reader of files (file_readers.py)

`test_fuzz.py` and `test_fuzz_files.py` start it with libFuzzer's options. It is a process of its
own, because atheris has to instrument modules before anything imports them, and libFuzzer ends the
process that it runs in.
"""

import sys
from functools import partial
from pathlib import Path

import atheris


def main(options: list[str]) -> None:
    """Fuzz with libFuzzer's options, which a reader's name may precede; does not return."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    if options[0].startswith("-"):
        with atheris.instrument_imports(include=["glioslice.wire"]):
            from tests.fuzz.readers import read_input
    else:
        from tests.fuzz import file_readers

        name = options.pop(0)
        reader = file_readers.READERS[name]
        with atheris.instrument_imports(include=list(reader.instrumented)):
            for data in reader.first_inputs():  # a reader imports what it needs when it reads
                file_readers.read_input(name, data)
        read_input = partial(file_readers.read_input, name)
    atheris.Setup([__file__, *options], read_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
