# Two commands do everything on a fresh Linux or macOS machine:
#   make parity   set up .venv, install, run the parity suite on the default model
#   make test     the same set-up, then the checks and the tests that need less than two seconds each
VENV   ?= .venv
PYTHON ?= python3
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
PAGES  := $(VENV)/.installed-docs
COREAI := $(VENV)/.installed-core-ai
JOBS   ?= 2
LOWEST ?= python3.10

unexport PYTHONDONTWRITEBYTECODE  # set in many containers: each of hundreds of processes would compile all modules anew

.DEFAULT_GOAL := help
.PHONY: help setup setup-all parity test long check lint slow mutants core-ai lower-ends coremltools-tests workflows eras bench docs dist matrix clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("parity needs Python 3.10-3.13" if not (3, 10) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --no-compile --editable '.[dev]'
	touch $@

setup: $(STAMP)  ## create .venv and install the project with its checks

parity: $(STAMP)  ## does the Core ML model draw the picture of its PyTorch original?
	OMP_NUM_THREADS=1 $(PY) -m pytest -p no:hypothesispytest -m parity -n $(JOBS) parity/suite --parity-report=report

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint  ## ruff, mypy and the tests in JOBS processes; those that convert models or draw pictures are `make long`
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist worksteal tests

long: $(STAMP)  ## the tests that convert models or draw pictures
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist worksteal -m 'long and not slow' tests

check: $(STAMP)  ## all tests that `make test`, `make long` and (with its extra) `make core-ai` run, in one session
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist worksteal -m 'not slow' tests

slow: $(STAMP)  ## the exhaustive and full-size tests, and the mutants
	$(PY) -m pytest -m slow
	$(MAKE) mutants

mutants: $(STAMP)  ## change what judges in a thousand small ways: nine in ten must be noticed (docs/mutants.md)
	$(PY) -m pip install --quiet --editable '.[mutants]'
	rm -rf mutants
	OMP_NUM_THREADS=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(VENV)/bin/mutmut run --max-children $(JOBS)
	$(VENV)/bin/mutmut results --all true | $(PY) -m tests.mutants

lower-ends:  ## all tests with the oldest Python and packages that pyproject.toml allows, in .venv-lowest
	$(LOWEST) -c 'import sys; sys.exit("the oldest Python that parity takes is 3.10; set LOWEST" if sys.version_info[:2] != (3, 10) else 0)'
	$(LOWEST) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --upgrade pip 'tomli>=2'
	.venv-lowest/bin/python -m tests.lowest > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --constraint .venv-lowest/constraints.txt --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n $(JOBS) --dist loadfile -m 'not slow'

$(COREAI): $(STAMP)
	$(PY) -m pip install --quiet --no-compile --editable '.[core-ai]'
	$(PY) -c 'from parity.coreai import availability; availability.require(convert=True)'
	touch $@

core-ai: $(COREAI)  ## install the extra core-ai and run its tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS) --dist worksteal -m 'coreai and not slow' tests/backends tests/coreai

coremltools-tests: $(STAMP)  ## coremltools' own tests through the reference runtime (long)
	OMP_NUM_THREADS=1 $(PY) -m parity.coreml.conformance --workers $(JOBS)

eras: $(STAMP)  ## packages as the libraries of each era write them (old interpreters, 5 GB)
	$(PY) -m fixtures.eras make

bench: $(STAMP)  ## speed as ratios to what you would run instead
	$(PY) -m benchmarks

workflows: $(STAMP)  ## actionlint on .github/workflows, which `make test` runs too
	$(VENV)/bin/actionlint

$(PAGES): $(STAMP)
	$(PY) -m pip install --quiet --no-compile --editable '.[docs]'
	touch $@

setup-all: $(COREAI) $(PAGES)  ## `make setup` with the extras core-ai and docs

docs: $(PAGES)  ## the documentation site in site/; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

dist: $(STAMP)  ## sdist and wheel in dist/; the wheel is installed into an empty environment and used there
	rm -rf dist
	$(PY) -m build --outdir dist .
	$(PY) -m tests.matrix dist --only "Python $$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])'), newest"

matrix: $(STAMP)  ## the same with every Python from 3.10 on that is here, oldest and newest dependencies
	rm -rf dist
	$(PY) -m build --outdir dist .
	$(PY) -m tests.matrix dist

clean:  ## remove what the targets above made
	rm -rf $(VENV) .venv-lowest mutants report site .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
