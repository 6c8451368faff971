# `make quickstart`, `make fast`, `make test`: each sets everything up on a fresh machine first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
KIND := $(if $(shell command -v nvidia-smi),gpu,cpu)
STAMP := $(VENV)/.installed-$(KIND)
OVERRIDES ?=
# Tests on a GPU would share its memory.
TEST_PROCESSES ?= $(if $(filter gpu,$(KIND)),1,2)
PYTEST := $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

.PHONY: setup quickstart fast test lint docs freeze lock gpu-check
.DELETE_ON_ERROR:

setup: $(STAMP)

$(STAMP): requirements/torch.txt requirements/$(KIND).txt pyproject.toml
	@echo "setting up $(VENV) for a machine with $(if $(filter gpu,$(KIND)),a GPU,no GPU) (a few minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(KIND),cpu)
	@$(PIP) -r requirements/torch.txt
	@$(PIP) --no-deps -r requirements/cpu.txt
else
	@$(PIP) -r requirements/gpu.txt
endif
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

quickstart: $(STAMP)
	$(BIN)/python -m thinking_rl.train recipes/quickstart.yaml $(OVERRIDES)

fast: $(STAMP)
	$(PYTEST) tests/unit

test: $(STAMP)
	$(PYTEST)

gpu-check:
	@test "$(KIND)" = gpu || { echo "gpu-check needs a machine with an NVIDIA GPU and its driver (nvidia-smi was not found): compute capability 8.0 or newer, 8 GiB free" >&2; exit 2; }
	@$(MAKE) --no-print-directory setup
	$(BIN)/python -m benchmarks.gpu_check

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The site in .site; a warning or a dead link is an error.
docs: $(VENV)/docs/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build

$(VENV)/docs/.installed: requirements/docs.txt
	@test -x $(VENV)/docs/bin/python || $(PYTHON) -m venv $(VENV)/docs
	@$(VENV)/docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	@touch $@

# Pins what is installed now; for whoever raises a version.
freeze: $(STAMP)
	@head -3 requirements/cpu.txt > requirements/cpu.new
	@$(BIN)/python -m pip freeze --exclude-editable | grep -viE '^(torch|pip|setuptools)==' >> requirements/cpu.new
	@mv requirements/cpu.new requirements/cpu.txt

# Resolves requirements/gpu.in for x86-64 Linux, with the versions of the CPU set but for what CUDA
# builds pin themselves. The oldest Python decides: the result is good for 3.12 too.
LOCK := $(VENV)/lock
OWN_ON_GPU := apache-tvm-ffi|triton
lock:
	@test -x $(LOCK)/bin/uv || $(PYTHON) -m venv $(LOCK)
	@$(LOCK)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@grep -vE '^($(OWN_ON_GPU))==' requirements/cpu.txt > $(LOCK)/shared.txt
	@echo '# Every package of a machine with an NVIDIA GPU (Linux, x86-64). Written by: make lock' > $(LOCK)/gpu.txt
	@$(LOCK)/bin/uv pip compile requirements/gpu.in -c $(LOCK)/shared.txt -c requirements/torch.txt \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 \
		--no-header --no-annotate --no-emit-index-url --quiet >> $(LOCK)/gpu.txt
	@mv $(LOCK)/gpu.txt requirements/gpu.txt
