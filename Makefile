# Every target makes what it needs: a virtual environment in .venv with the versions of
# constraints.txt. The stamps inside .venv are older than pyproject.toml or constraints.txt
# only when the environment is out of date, so a second run installs nothing.

VENV := .venv
BIN := $(VENV)/bin
SETTINGS := pyproject.toml constraints.txt
SPHINX_FLAGS ?= -W --keep-going

# The first interpreter that is new enough; `make PYTHON=...` overrides it.
PYTHON ?= $(firstword $(foreach python,python3.11 python3.12 python3.13 python3 python,$(shell \
	$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $(python))))

.PHONY: help demo test test-slow lint format bench docs notebooks wheel clean

help:
	@echo "make demo       fit penguins both ways; pictures in runs/demo/"
	@echo "make test       lint, then the tests with their coverage"
	@echo "make test-slow  the tests that take longer than twenty seconds each"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make format     let ruff rewrite what it can"
	@echo "make bench      the benchmarks, side by side with the peers"
	@echo "make docs       the documentation, in docs/_build/html"
	@echo "make notebooks  execute notebooks/*.py into the .ipynb beside each"
	@echo "make wheel      build the wheel into dist/"
	@echo "make clean      remove what the targets made, .venv included"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python >= 3.11 found; pass one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One rule for the package alone and for the package with each of its extras.
$(VENV)/.core: EXTRA :=
$(VENV)/.dev: EXTRA := [dev]
$(VENV)/.docs: EXTRA := [docs]
$(VENV)/.bench: EXTRA := [bench]
$(VENV)/.core $(VENV)/.dev $(VENV)/.docs $(VENV)/.bench: $(SETTINGS) | $(BIN)/python
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.$(EXTRA)'
	@touch $@

demo: $(VENV)/.core
	$(BIN)/python -m ppl_gen.demo

# A file of tests goes to one worker, which shares the fits within it.
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# Lint first: it is quick, and its findings make the longer test run pointless.
test: lint
	$(PYTEST) --cov=ppl_gen --cov-report=term:skip-covered --cov-fail-under=90

test-slow: $(VENV)/.dev
	$(PYTEST) -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

docs: $(VENV)/.docs
	$(BIN)/sphinx-build $(SPHINX_FLAGS) -b html docs docs/_build/html

notebooks: $(VENV)/.docs
	$(BIN)/python notebooks/_execute.py

wheel: | $(BIN)/python
	rm -rf build  # setuptools ships what is left in it
	$(BIN)/python -m pip wheel -qq --disable-pip-version-check --no-deps -w dist .

clean:
	rm -rf $(VENV) build dist docs/_build docs/generated docs/notebooks runs *.egg-info \
		.coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
