# make demo: set-up and the main job. make test: set-up and tests.
# Each is sufficient alone on a fresh clone; `make help` lists all targets.

SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
# A PYTHON given by the user, else the first Python 3.11 found.
PYTHON ?= $(shell for p in python3.11 python3 python; do \
  "$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
    >/dev/null 2>&1 && echo "$$p" && break; done)
# Newer packages break TensorFlow 2.14 silently (docs/installation.md).
LOCK_DATE := 2024-11-15
LOCK_FLAGS := --python-version 3.11 --exclude-newer $(LOCK_DATE) --no-header \
  --no-annotate --no-emit-index-url --no-emit-find-links --quiet

export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help setup setup-gpu demo test test-slow lint build-files lock clean

help:  ## Lists the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
	  expand -t 14

setup: $(VENV)/.installed  ## Makes the virtual environment (once).

setup-gpu: $(VENV)/.installed-gpu  ## Adds the CUDA 11.8 libraries to it.

# `--no-deps`: the lock is complete, and pip's resolver would refuse it because
# of TFF's pin of a jaxlib that no longer exists (overrides.txt).
$(VENV)/.installed: requirements.lock setup.cfg pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo 'Python 3.11 is needed (TensorFlow' \
	  'Federated 0.87 runs on no newer one): install it, or give its path as' \
	  'make PYTHON=/path/to/python3.11' >&2; exit 1; fi
	rm -f $@
	if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV) && \
	  uv pip install --quiet --python $(BIN)/python --no-deps \
	    -r requirements.lock && \
	  uv pip install --quiet --python $(BIN)/python --no-deps \
	    --no-build-isolation -e . ; \
	else \
	  "$(PYTHON)" -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --no-deps -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e . ; \
	fi
	touch $@

$(VENV)/.installed-gpu: $(VENV)/.installed requirements-gpu.lock
	if command -v uv >/dev/null; then \
	  uv pip install --quiet --python $(BIN)/python --no-deps \
	    -r requirements-gpu.lock ; \
	else \
	  $(BIN)/python -m pip install --quiet --no-deps -r requirements-gpu.lock ; \
	fi
	touch $@

demo: setup  ## Trains FedSA on digits: table and figures in runs/fedsa.digits.
	$(BIN)/python -m launch.train --flagfile=flags/fedsa.digits.flags

test: setup  ## Lints and runs all tests but the slow ones.
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -m 'not slow'

test-slow: setup  ## Runs the slow tests.
	$(BIN)/python -m pytest -m slow

lint: setup  ## Checks style and types only.
	$(BIN)/ruff check .
	$(BIN)/python -m mypy

build-files: setup  ## Writes the BUILD files anew from the imports.
	$(BIN)/python -m tools.build_files --write

lock: setup  ## Resolves requirements*.in anew into the lock files.
	command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv
	PATH="$(PATH):$(abspath $(BIN))"; for name in requirements \
	    requirements-gpu; do \
	  { echo '# Made by `make lock`. Complete: install with --no-deps'; \
	    echo '# (docs/installation.md says why).'; \
	    uv pip compile $(LOCK_FLAGS) --override overrides.txt $$name.in ; \
	  } > $$name.tmp && mv $$name.tmp $$name.lock || exit 1; done

clean:  ## Removes the environment and what tools left; keeps runs/.
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
