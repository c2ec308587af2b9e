# make run   start the daemon        make test   run the whole suite
# make bench print the tables        make lint   format, lint and type checks
# make bench-liveportrait            LivePortrait's: BENCH="--device cuda --weights DIR"
# make fuzz  a million messages that nobody would send: FUZZ="--messages 1000 --seed 7"
# make chaos break it on purpose     make soak   an hour under load: SOAK="--minutes 2"

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOCK := config/requirements.lock
# One more than there are cores: many tests wait for a process or a socket.
WORKERS ?= $(shell expr $$($(PYTHON) -c 'import os; print(os.cpu_count() or 1)') + 1)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run test bench bench-liveportrait chaos soak fuzz install-locked lock audit lint format clean

run: $(VENV)/.core
	@$(BIN)/avatar-orchestrator run

test: $(VENV)/.all
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

bench: $(VENV)/.all
	$(BIN)/python -m tests.benchmarks $(BENCH)

bench-liveportrait: $(VENV)/.all
	$(BIN)/python -m tests.benchmarks.liveportrait $(BENCH)

chaos: $(VENV)/.all
	$(BIN)/python -m tests.chaos $(CHAOS)

soak: $(VENV)/.all
	$(BIN)/python -m tests.chaos.soak $(SOAK)

fuzz: $(VENV)/.all
	$(BIN)/python -m tests.fuzz $(FUZZ)

lint: $(VENV)/.all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What was tried and nothing else, every file checked by its hash.
install-locked: $(VENV)/bin/python
	$(PIP) install -q --require-hashes --no-deps -r $(LOCK)
	$(PIP) install -q --no-deps -e .
	@touch $(VENV)/.core

lock:
	uv pip compile pyproject.toml --generate-hashes --universal --python-version 3.11 \
		--no-header --no-annotate --quiet > requirements.new
	head -2 $(LOCK) | cat - requirements.new > $(LOCK).new
	mv $(LOCK).new $(LOCK) && rm requirements.new

# Asks a service about known vulnerabilities, so it needs the network, and pip-audit.
audit:
	pip-audit --requirement $(LOCK) --require-hashes --disable-pip

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; choose one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade "pip>=26.2"

$(VENV)/.core: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -q -e .
	@touch $@

# insightface brings opencv-python, which needs desktop libraries and overwrites the headless
# build: take it away and put the headless files back. Its dependency stays unmet by name only.
$(VENV)/.all: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -q -e ".[liveportrait]" --group dev
	$(PIP) uninstall -q -y opencv-python
	$(PIP) install -q --force-reinstall --no-deps "opencv-python-headless>=5.0.0.93"
	@touch $(VENV)/.core $@
