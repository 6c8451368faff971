# `make quickstart`, `make fast`, `make test`: each sets everything up on a fresh machine first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
KIND := $(if $(shell command -v nvidia-smi),gpu,cpu)
STAMP := $(VENV)/.installed-$(KIND)
OVERRIDES ?=

.PHONY: setup quickstart fast test lint freeze
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
	$(BIN)/python -m pytest tests/unit

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Pins what is installed now; for whoever raises a version.
freeze: $(STAMP)
	@head -3 requirements/cpu.txt > requirements/cpu.new
	@$(BIN)/python -m pip freeze --exclude-editable | grep -viE '^(torch|pip|setuptools)==' >> requirements/cpu.new
	@mv requirements/cpu.new requirements/cpu.txt
