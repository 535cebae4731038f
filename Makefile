# Every target sets up what it needs: Python 3.10 to 3.13, git and make are enough to start from.

PYTHON ?= python3
EXTRAS ?= lavis deepspeed rl small docs dev
OPTIONS ?=
# On a busy machine some of the tests of pages, signals and speed can miss their time: each failure is tried once more,
# and the summary lists what needed it.
PYTEST_FLAGS ?= -n auto --maxprocesses 4 --dist loadgroup --reruns 1 -r fER

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# uv from the PATH, or our own copy.
UV := $(or $(shell command -v uv 2>/dev/null),.tooling/bin/uv)
export UV

.DEFAULT_GOAL := help
.PHONY: help setup test test-teachers lint format docs quickstart small quickstart-small doctor wheel clean

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Make the environment .venv with everything in it.

test: $(READY)  ## Run the test suite (PYTEST_FLAGS="-k shards" to choose).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_FLAGS)

test-teachers: $(READY)  ## Install the teachers, each in an environment of its own, and test them (nightly).
	PATH="$(abspath .tooling/bin):$$PATH" $(BIN)/emovit facial teachers --install all
	EMOVIT_TEST_TEACHERS=1 $(BIN)/python -m pytest tests/teachers/test_real_teachers.py

lint: $(READY)  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Put the code into house style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## Write the documentation as a site to output/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "output/site/index.html"

quickstart: $(READY)  ## Draw sample data, tune the tiny model, evaluate, write a report (OPTIONS="run.seed=1" to override).
	$(BIN)/python -m lavis.train --cfg-path projects/emovit/quickstart.yaml $(if $(OPTIONS),--options $(OPTIONS))

small: $(READY)  ## Build the weights of emovit_small from the installed packages, in the cache folder.
	$(BIN)/python -m lavis_emovit.models.small.build

quickstart-small: small  ## Tune emovit_small on real faces, and compare it in a report.
	$(BIN)/python -m lavis.evaluate --cfg-path projects/emovit/eval/quickstart_small.yaml $(if $(OPTIONS),--options $(OPTIONS))

doctor: $(READY)  ## Check this machine and print the fix for what is wrong.
	$(BIN)/emovit doctor

wheel: $(READY)  ## Build the wheel into dist/.
	rm -rf build
	$(UV) build --wheel --out-dir dist .

clean:  ## Remove the environment, caches and build products; data and output stay.
	rm -rf $(VENV) .tooling build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): setup.py pyproject.toml lavis_emovit.pth | $(UV)
	$(UV) sync $(foreach extra,$(EXTRAS),--extra $(extra))
	@touch $@

# A machine without uv: through a virtual environment, or where Python comes without ensurepip, through its own pip.
.tooling/bin/uv:
	@rm -rf .tooling && mkdir -p .tooling/bin
	@if $(PYTHON) -m venv .tooling/venv >/dev/null 2>&1 && .tooling/venv/bin/python -m pip --version >/dev/null 2>&1; then \
		.tooling/venv/bin/python -m pip install --quiet uv && ln -s ../venv/bin/uv $@; \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
		$(PYTHON) -m pip install --quiet --target .tooling/lib uv && ln -s ../lib/bin/uv $@; \
	else \
		echo "This Python has neither venv nor pip. Install one of them (python3-venv on Debian) or uv, then run make again." >&2; \
		exit 1; \
	fi
