# `make demo` and `make test` are each sufficient on a fresh clone: they set up
# what is missing, once. Needs Python 3.11; uses uv where it is on the PATH.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow lint setup setup-gpu setup-ray lock \
  flags-reference clean

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_GPU := $(VENV)/.installed-gpu
INSTALLED_RAY := $(VENV)/.installed-ray

# The first of these that is Python 3.11; make PYTHON=/path/to/it otherwise.
IS_311 := -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
PYTHON ?= $(shell for python in python3.11 python3 python; do \
  $$python $(IS_311) 2>/dev/null && echo $$python && break; done)

UV := $(shell command -v uv 2>/dev/null)
PIP_INSTALL := $(if $(UV),$(UV) pip install --python $(BIN)/python,\
  $(BIN)/python -m pip install)

# More arguments for the program of demo, test and test-slow.
ARGS ?=

# Tests at a time: as many as there are cores, and memory for (2 GB each).
JOBS ?= $(shell cores=$$(nproc); echo $$((cores < 8 ? cores : 8)))
# Each worker gets a piece of the list, and takes over from a slower one.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist=worksteal --durations=25

# TensorFlow's notes on CUDA and CPU features would bury everything else.
export TF_CPP_MIN_LOG_LEVEL ?= 3

help:  ## Shows this.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' \
	  $(MAKEFILE_LIST)

demo: $(INSTALLED)  ## Shows what clients gain from each other, on digits.
	$(BIN)/python -m launch.demo $(ARGS)

test: $(INSTALLED)  ## Runs the tests, without the slow ones.
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(INSTALLED_RAY)  ## Runs the slow tests.
	$(PYTEST) -m slow $(ARGS)

lint: $(INSTALLED)  ## Checks style and types.
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

setup: $(INSTALLED)  ## Installs everything into .venv (2.7 GB).

setup-gpu: $(INSTALLED_GPU)  ## Adds the CUDA libraries for NVIDIA GPUs.

setup-ray: $(INSTALLED_RAY)  ## Adds Ray, for --runtime=ray (210 MB).

lock: | $(BIN)/pip  ## Resolves requirements*.lock anew.
	$(if $(UV),,$(BIN)/python -m pip install uv)
	tools/lock.sh $(or $(UV),$(BIN)/uv)


flags-reference: $(INSTALLED)  ## Writes docs/flags.md from the flags.
	$(BIN)/python -m tools.flags_reference --write

clean:  ## Removes .venv and caches; runs/ stays.
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(or $(PYTHON),false) $(IS_311) 2>/dev/null || { echo >&2 \
	  "Expected Python 3.11, which tensorflow-federated needs; found:" \
	  "$(or $(PYTHON),none as python3.11, python3 or python)." \
	  "Install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamp comes last: an installation that failed half way is repeated.
#
# --no-deps: tensorflow-federated demands jaxlib 0.4.14, which the registry no
# longer has. The lock is complete without pip's resolver (see its head).
# --no-build-isolation: what has no wheel is built with the locked setuptools.
$(INSTALLED): requirements.lock requirements-notebook.lock | $(BIN)/pip
	@$(BIN)/python $(IS_311) || { echo >&2 \
	  "Expected Python 3.11 in $(VENV), found another:" \
	  "'make clean' removes it."; exit 1; }
	rm -f $@
	$(PIP_INSTALL) --no-deps $$(grep -E '^(setuptools|wheel)==' $<)
	$(PIP_INSTALL) --no-deps --no-build-isolation \
	  $(foreach lock,$^,-r $(lock))
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	touch $@

$(INSTALLED_GPU): requirements-gpu.lock $(INSTALLED)
$(INSTALLED_RAY): requirements-ray.lock $(INSTALLED)
$(INSTALLED_GPU) $(INSTALLED_RAY):
	rm -f $@
	$(PIP_INSTALL) --no-deps -r $<
	touch $@
