# One command per wish, on a machine that has Python 3.11 or newer, make and git. `make` alone lists them.
# What is set up stands in .venv and is set up again when pyproject.toml or constraints.txt change.

PYTHON      ?= python3
# On Linux, PyPI's torch brings CUDA (several GB). For the small CPU build, add its index: PIP_EXTRA_INDEX_URL.
TORCH       ?= torch==2.13.0
# Empty (`make test CONSTRAINTS=`): the newest versions that the floors allow.
CONSTRAINTS ?= constraints.txt
# Processes pytest spreads over; 0 keeps to one, which is what a debugger wants.
WORKERS     ?= 2
# Which tests the built wheel must pass too; `make test WHEEL_TESTS=` runs all of them twice.
WHEEL_TESTS ?= -m wheel

VENV  := .venv
BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip --disable-pip-version-check --no-input -q
# The package is built with the setuptools of .venv: nothing is fetched a second time.
EXTRA  = $(PIP) install --no-build-isolation $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
TYPES := $(VENV)/types
WHEEL := $(VENV)/wheel

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo setup test lint format types wheel-test editable-test clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.demo ## Set up, then embed and annotate real cells (examples/quickstart.py)
	$(BIN)/python examples/quickstart.py

setup: $(VENV)/.test ## Set up everything for development, nothing else

# The whole suite comes last: its summary is the line to read.
test: lint types wheel-test editable-test ## Set up, check style and types, test the wheel and the sources

lint: $(VENV)/.test ## Check style (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.test ## Put the code into shape (ruff)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# mypy reads folders, not import hooks: it gets the packages as a tree of links.
types: $(VENV)/.test ## Check types (mypy)
	$(BIN)/python .ci/link_packages.py $(TYPES)
	cd $(TYPES) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache -p epifoundation -p epifoundation_cli

editable-test: $(VENV)/.test ## Run all tests on the sources
	$(call latest_wheel) $(BIN)/pytest -n $(WORKERS)

# From another folder, so that nothing of the repository can be imported by accident.
wheel-test: $(VENV)/.wheel ## Run the tests marked `wheel` on the built and installed wheel
	cd $(WHEEL) && $(call latest_wheel) bin/python -m pytest -c $(CURDIR)/pyproject.toml --rootdir $(CURDIR) \
		-p no:cacheprovider -n $(WORKERS) $(WHEEL_TESTS) $(CURDIR)/tests

clean: ## Remove everything made here, .venv included
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# --- set-up: each step leaves a stamp, so that the next call skips it ---------------------------------

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "EpiFoundation needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
		"Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) "$(TORCH)" setuptools
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.torch
	$(EXTRA) -e ".[demo]"
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/.torch
	$(EXTRA) -e ".[test]"
	@touch $@ $(VENV)/.demo

SOURCES := pyproject.toml $(shell find modeling_epifoundation tokenization dataset_builders training inference \
	evaluation cli -type f -not -name '*.pyc' 2>/dev/null)
latest_wheel = EPIFOUNDATION_WHEEL=$$(ls $(CURDIR)/$(VENV)/dist/*.whl)

# A second environment that borrows the libraries of the first by path. A path does not bring along the hook of
# the editable install, so `import epifoundation` can only find the wheel.
$(VENV)/.wheel: $(SOURCES) $(VENV)/.test
	rm -rf $(VENV)/dist $(WHEEL)
	$(BIN)/python -m build --no-isolation --outdir $(VENV)/dist . >$(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	$(PYTHON) -m venv --without-pip $(WHEEL)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		>"$$($(WHEEL)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	$(PIP) --python $(WHEEL)/bin/python install --no-deps --no-index $(VENV)/dist/*.whl
	@touch $@
