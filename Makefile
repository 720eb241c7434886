# This first target lists the others: each one's comment is its line.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
SHARED ?= ../shared/data
DATA ?= $(SHARED)/brats
BOARD ?= mps2-an500
# The runtime that boards get. Products are judged on it: onnx2tf pins an older one, for checks of its own that we do not use.
LITERT = ai-edge-litert==2.3.0
# The challenge's own scores pin an older rich and pandas: what they really need is in the extra dev.
BRATS = brats-evaluation==0.0.10 panoptica==2.1.7
# deepbet declares a GUI kit that only its own window imports: what it really needs is in the extra scanner.
DEEPBET = deepbet==1.0.2
PIP = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Two processes of tests share two cores: in each, TensorFlow, torch and LiteRT would start a thread a core.
PARALLEL = OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 \
  .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo firmware-demo test fast lint test-arm64 test-pi models accuracy engines folds clean

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: .venv-demo/ready  ## stream a volume over a simulated serial link to a board's process [INPUT=CASE]
	.venv-demo/bin/python firmware_host/stream.py --port "sim://?baud=3000000" $(if $(INPUT),--input "$(INPUT)") \
	  --output demo/mask.nii.gz --report demo/report.json --report demo/report.html --force
	@echo "see it slice by slice: .venv-demo/bin/python firmware_host/stream.py --open demo/mask.nii.gz --report demo/report.json$(if $(INPUT), --input \"$(INPUT)\")"

# With Debian's gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm. BOARD=mps3-an547 is a Cortex-M55.
firmware-demo: .venv-demo/ready  ## stream the phantom into the firmware of a microcontroller, emulated by QEMU [INPUT=CASE BOARD=NAME]
	@for program in arm-none-eabi-gcc qemu-system-arm; do command -v $$program >/dev/null || { \
	  echo "error: $$program is missing: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm" >&2; exit 2; }; done
	.venv-demo/bin/python convert/targets/firmware.py models/compact/compact-int8.tflite --out build/firmware/tables
	$(MAKE) --silent --directory device/firmware BOARD=$(BOARD) BAUD=921600
	.venv-demo/bin/python tools/firmware_demo.py --board $(BOARD) --output demo/firmware-mask.nii.gz \
	  --report demo/firmware.json --report demo/firmware.html --force --view $(if $(INPUT),--input "$(INPUT)")

fast: .venv/ready  ## the quick tests: 90 seconds on two cores, no network, no emulator
	$(PARALLEL) -m "not slow and not browser and not board and not real and not serial" --durations 10

test: lint  ## lint, types, architecture and all tests: 40 minutes on two cores
	$(PARALLEL) -m "not serial" --durations 20
	.venv/bin/python -m pytest -m serial --durations 20

lint: .venv/ready  ## format, lint, types and the import rules
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# Linux, root and Debian's packages of .ci/run; the first run downloads into build/.
test-arm64: .venv/ready  ## the board's side on an emulated 64-bit Arm, part of make test
	.venv/bin/python -m pytest tests/board/test_streaming.py tests/board/test_32_bit.py

test-pi: .venv/ready  ## a whole emulated Raspberry Pi 3B with systemd, part of make test
	.venv/bin/python -m pytest tests/board/test_whole_pi.py

# MIRRORING=on or off sets mirroring in the cards first; without it they keep what they have.
models: .venv/ready  ## make every product, golden, card and figure again from the checkpoints in models/
	for size in nano compact; do \
	  .venv/bin/python tools/cards.py models/$$size --rules standard $(if $(MIRRORING),--mirroring $(MIRRORING)) || exit 2; \
	  .venv/bin/python convert/to_tflite.py models/$$size --data $(DATA) --target pi,coral --out models/$$size || exit 2; \
	  .venv/bin/python tools/cards.py models/$$size --data $(DATA) || exit 2; \
	  .venv/bin/python tools/goldens.py models/$$size || exit 2; \
	done
	.venv/bin/python benchmarks/accuracy.py --shipped
	.venv/bin/python tools/figures.py

accuracy: .venv/ready  ## score the networks of the four folds and write docs/accuracy.md
	.venv/bin/python benchmarks/accuracy.py $(if $(wildcard $(DATA)),--data $(DATA))

engines: .venv/ready  ## time the shipped network on every engine, on an idle machine, for docs/engines.md
	.venv/bin/python benchmarks/engines.py

folds: .venv/ready  ## train the networks of the folds again: a day on two cores
	.venv/bin/python benchmarks/folds.py --data $(SHARED)
	.venv/bin/python benchmarks/folds.py --time
	.venv/bin/python benchmarks/accuracy.py --data $(DATA)

.venv-demo/ready: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is too old, Python 3.11 is needed; name one: make demo PYTHON=python3.11" >&2; exit 2; }
	@echo "installing board and host into .venv-demo"
	$(PYTHON) -m venv --clear .venv-demo
	.venv-demo/bin/python $(PIP) --editable ".[device,host]" $(LITERT)
	touch $@

.venv/ready: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "error: $(PYTHON) is not Python 3.11, which TensorFlow's and torch's pins need; name one: make test PYTHON=python3.11" >&2; exit 2; }
	@echo "installing everything into .venv (several GB, some minutes)"
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python $(PIP) --editable ".[dev]"
	.venv/bin/python $(PIP) --no-deps $(LITERT) $(BRATS) $(DEEPBET)
	touch $@

clean:  ## remove the environments and everything that was built
	rm -rf .venv .venv-demo build demo
