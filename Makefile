# make demo [INPUT=CASE]   the few packages of board and desk, then a volume over a virtual line to a board's process
# make test                everything, then lint, types, architecture and all tests
# make test-arm64          the board's side on an emulated 64-bit Arm, part of make test
# make test-pi             a whole emulated Raspberry Pi 3B with systemd, part of make test
# make models              every product, golden, card and figure anew from the checkpoints in models/
# make accuracy            score the networks of the four folds, and write docs/accuracy.md
# make engines             time the shipped network on every engine, on an idle machine, for docs/engines.md
# make folds               train those networks anew: a day on two cores

PYTHON ?= $(shell command -v python3.11 || command -v python3)
SHARED ?= ../shared/data
DATA ?= $(SHARED)/brats
# The runtime that boards get. Products are judged on it: onnx2tf pins an older one, for checks of its own that we do not use.
LITERT = ai-edge-litert==2.3.0
PIP = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test fast test-arm64 test-pi models accuracy engines folds clean

demo: .venv-demo/ready
	.venv-demo/bin/python firmware_host/stream.py --port "sim://?baud=3000000" $(if $(INPUT),--input "$(INPUT)") \
	  --output demo/mask.nii.gz --report demo/report.json --report demo/report.html --force
	@echo "see it slice by slice: .venv-demo/bin/python firmware_host/stream.py --open demo/mask.nii.gz --report demo/report.json$(if $(INPUT), --input \"$(INPUT)\")"

test: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pytest -m ""

fast: .venv/ready
	.venv/bin/python -m pytest

# Linux, root and Debian's packages of .ci/run; the first run downloads into build/.
test-arm64: .venv/ready
	.venv/bin/python -m pytest -m "" tests/board/test_streaming.py tests/board/test_32_bit.py

test-pi: .venv/ready
	.venv/bin/python -m pytest -m "" tests/board/test_whole_pi.py

models: .venv/ready
	for size in nano compact; do \
	  .venv/bin/python convert/to_tflite.py models/$$size --data $(DATA) --target pi,coral --out models/$$size || exit 2; \
	  .venv/bin/python tools/cards.py models/$$size --data $(DATA) || exit 2; \
	  .venv/bin/python tools/goldens.py models/$$size || exit 2; \
	done
	.venv/bin/python tools/figures.py

accuracy: .venv/ready
	.venv/bin/python benchmarks/accuracy.py $(if $(wildcard $(DATA)),--data $(DATA))

engines: .venv/ready
	.venv/bin/python benchmarks/engines.py

folds: .venv/ready
	.venv/bin/python benchmarks/folds.py --data $(SHARED)
	.venv/bin/python benchmarks/slice_time.py
	.venv/bin/python benchmarks/accuracy.py --data $(DATA)

.venv-demo/ready: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is too old, Python 3.11 is needed; name one: make demo PYTHON=python3.11" >&2; exit 2; }
	@echo "installing board and desk into .venv-demo"
	$(PYTHON) -m venv --clear .venv-demo
	.venv-demo/bin/python $(PIP) --editable ".[device,host]" $(LITERT)
	touch $@

.venv/ready: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "error: $(PYTHON) is not Python 3.11, which TensorFlow's and torch's pins need; name one: make test PYTHON=python3.11" >&2; exit 2; }
	@echo "installing everything into .venv (several GB, some minutes)"
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python $(PIP) --editable ".[dev]"
	.venv/bin/python $(PIP) --no-deps $(LITERT)
	touch $@

clean:
	rm -rf .venv .venv-demo build demo
