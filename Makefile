# make demo and make test are all that a newcomer needs; each makes its own .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Two test processes with one thread each keep both of two cores busy.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: demo test check bench claims docs clean

# A stamp for the package and one for the tools, so that `make demo` installs no more than it needs.
$(VENV)/.elman: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Elman needs Python 3.11 or newer; give one with make PYTHON=python3.11" >&2; exit 2; }
	@echo "Making $(VENV) and installing Elman (about a minute) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch numpy
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.elman
	@echo "Installing the test tools …"
	@$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@$(PIP) -e '.[bench]'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	@$(PIP) -e '.[docs]'
	@touch $@

## The main job on the text we ship: train, compare, sample, score.
demo: $(VENV)/.elman
	$(BIN)/elman demo

## Every test. Those that need a GPU say so and are skipped without one.
test: $(VENV)/.dev
	$(PYTEST) -n 2 --dist worksteal

## Lint, format, types, import floors.
check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

## Every figure asked of the kernels beside the one seen here, in under ten minutes.
bench: $(VENV)/.bench
	$(BIN)/python benchmarks/figures.py

## What the textbooks claim, measured: runs examples/, writes docs/claims.md, in six minutes.
claims: $(VENV)/.elman
	OMP_NUM_THREADS=1 $(BIN)/python examples/make_ledger.py

## The documentation, with its gallery executed, into docs/_build/html.
docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build .pytest_cache .ruff_cache build dist
