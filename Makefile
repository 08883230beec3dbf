# Every target sets up what it needs by itself; `make` alone lists them.
PYTHON := .venv/bin/python
PARALLEL := -n auto --dist loadfile
# Kernels of its own: two versions of Numba would compile each other's away.
LOWEST := NUMBA_CACHE_DIR=$(CURDIR)/.venv-lowest/numba
FAST := not slow and not broker
.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types docs test-fast test-lowest test-nightly bench format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## a virtual environment in .venv with everything in it
	@bin/setup

demo: setup ## flights through Kafka, predictions, a summary: ends by itself
	@.venv/bin/thalweg demo

test: setup ## the whole suite
	$(PYTHON) -m pytest $(PARALLEL)

check: lint types docs test-fast ## what to run before a commit

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: setup
	$(PYTHON) -m mypy -p thalweg

docs: setup ## the examples in the docstrings and in the documents
	$(PYTHON) -m pytest --doctest-modules src/thalweg tests/test_docs.py

test-fast: setup
	$(PYTHON) -m pytest $(PARALLEL) -m "$(FAST)"

test-lowest: ## the fast tests on the oldest supported versions
	@$(LOWEST) bin/setup .venv-lowest constraints-lowest.txt
	$(LOWEST) .venv-lowest/bin/python -m pytest $(PARALLEL) -m "$(FAST)"

test-nightly: setup ## the whole suite with many more random examples
	$(PYTHON) -m pytest --hypothesis-profile=nightly

bench: setup ## the benchmarks in full, results in benchmarks/results, and the table in README.md
	$(PYTHON) -m benchmarks
	$(PYTHON) -m benchmarks readme

format: setup ## put the code into shape
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean: ## remove what the targets above made
	rm -rf .venv .venv-lowest build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find engine connectors dataflows benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +
