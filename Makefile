# `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest.
SHELL := bash
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(shell command -v $(p))))
BIN := .venv/bin
READY := .venv/.ready
SOURCES := stream models consumers tests benchmarks examples
UV := .cache/tools/bin/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock" pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help venv check-pins demo test test-faults test-quick lint format lock docs bench clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

venv: $(READY)  ## the virtual environment, from the lock file

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Driftline needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: venv  ## the whole loop on real data, with a broker of its own
	$(BIN)/driftline demo

test: venv  ## everything: lint, types, layers, all tests on real servers; says where the time went
	@bash scripts/test

test-quick: venv  ## the tests that need no server: seconds
	$(BIN)/python -m pytest -q -m "not kafka and not postgres and not browser and not demo and not faults"

test-faults: venv  ## the long fault tests: processes, brokers, networks and disks that fail; 45 minutes
	@scripts/prepare-system
	$(BIN)/python -m tests.broker
	$(BIN)/python -m pytest -m faults -n 3 --dist worksteal --durations=0

lint: venv  ## style, types and the direction of imports
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv  ## lay the code out
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

docs: venv  ## the documents of the API, and the site into .cache/site; a wrong link fails
	$(BIN)/python -m consumers.manual
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: venv  ## the figures of docs/performance.md, made on this machine: 40 minutes at most
	$(BIN)/python -m benchmarks.all

check-pins: venv  ## PINS="faust-streaming==0.15.4": what must hold before a pin moves
	scripts/check-pins $(PINS)

lock: $(UV)  ## newest allowed versions into the lock files
	$(COMPILE) --upgrade --group dev -o requirements.lock
	$(COMPILE) --constraint requirements.lock -o deploy/requirements.lock

$(UV):
	$(PYTHON) -m venv .cache/tools
	.cache/tools/bin/pip install --quiet --disable-pip-version-check uv

clean:  ## what make and the tests made
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
