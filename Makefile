# The commands of a newcomer. They need Python 3.11 (with its venv module) and nothing else.
#   make demo   install into .venv and run the theophylline study with the shipped estimator
#   make test   run everything continuous integration runs
#   make train-one-compartment-oral   rebuild a shipped estimator from its recipe
#   make train-mrna-transfection-simple   the same for the other one

VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Added to every `pip install`: .ci/run says --no-compile, which saves a minute of bytecode nobody imports.
PIP_OPTIONS ?=
OUT ?= .

.DEFAULT_GOAL := help
.PHONY: help demo test lint types test-tensorflow test-jax train-one-compartment-oral train-mrna-transfection-simple

# Processes that share the tests. Each starts with a stretch of its own, so that what one compiles the other
# finds on disk and a fixture is seldom made twice; who is done first takes over from the others.
WORKERS ?= 2
SHARED := -n $(WORKERS) --dist worksteal

help:
	@sed -n '2,5s/^# *//p' Makefile

demo: $(VENV)/.runtime
	$(BIN)/amortnlme quickstart --out $(OUT)

# JAX runs the tests that depend on the backend; the closing line is that of the whole suite on TensorFlow.
test: lint types test-jax test-tensorflow

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

test-tensorflow: $(VENV)/.dev
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest $(SHARED)

test-jax: $(VENV)/.dev
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(SHARED) -m "backend and not slow and not gpu"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python found. amortnlme needs Python 3.11: apt install python3.11 python3.11-venv"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "amortnlme needs Python 3.11, but '$(PYTHON)' is another version. Install it, or say which: make demo PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python 3.11 is here, but not its venv module. On Debian or Ubuntu: apt install python3.11-venv"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

# The locked versions first, then the package itself without touching them.
$(VENV)/.runtime: requirements/lock.txt pyproject.toml | $(BIN)/python
	$(PIP) install $(PIP_OPTIONS) -r requirements/lock.txt
	$(PIP) install $(PIP_OPTIONS) --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements/lock-dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install $(PIP_OPTIONS) -r requirements/lock-dev.txt
	$(PIP) install $(PIP_OPTIONS) --no-deps -e .
	@touch $@ $(VENV)/.runtime

# About 40 minutes on one core; an interrupted run goes on where it stopped. It trains on JAX, hence the .dev.
train-one-compartment-oral: $(VENV)/.dev
	PATH="$(abspath $(BIN)):$$PATH" sh experiments/train_one_compartment_oral/run.sh runs

# About 40 minutes on one core.
train-mrna-transfection-simple: $(VENV)/.dev
	PATH="$(abspath $(BIN)):$$PATH" sh experiments/train_mrna_transfection_simple/run.sh runs
