# Everything a developer runs. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo down test simulate faults lint type generate verify bench lock clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Settings: KEEP=0 stops the demo at its end; CLUSTER=local|kind|current chooses the Kubernetes;"
	@echo "TRIPLANE_HOME is where state lives (default ~/.local/state/triplane)."

$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=…") if sys.version_info < (3, 11) else None'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian, Ubuntu:" \
		"apt install python3-venv), or set PYTHON=… to another Python" >&2; exit 1; }
	@echo "Installing the locked dependencies into $(VENV) (once, about a minute) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(READY) ## Make the virtual environment with the locked dependencies

demo: $(READY) ## Run the main job on embedded defaults and show what came of it
	@$(BIN)/triplane demo

down: $(READY) ## Stop everything that `make demo` or `triplane up` left running
	@$(BIN)/triplane down

test: $(READY) ## Run every test tier; fails when one could not run
	@$(BIN)/python -m tests.tiers

simulate: $(READY) ## Run seeded histories against the real decisions; SEEDS=10000 FIRST_SEED=0
	@$(BIN)/python -m tests.simulation

faults: $(READY) ## Run the long fault campaign (seeded kills); FAULT_SEED=n repeats one
	@$(BIN)/python -m tests.faults

lint: $(READY) ## Check formatting, lint rules and the dependency direction
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo

type: $(READY) ## Check types strictly
	@$(BIN)/mypy

generate: $(READY) ## Write everything that is generated (CRDs, reference pages)
	@$(BIN)/python -m triplane.cli.generate

verify: $(READY) ## Fail when a generated file is not what would be generated now
	@$(BIN)/python -m triplane.cli.generate --check

bench: $(READY) ## Measure; writes build/bench.json and prints a table
	@$(BIN)/python -m tests.bench

lock: $(READY) ## Write the lock files anew from pyproject.toml
	@$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
		--no-annotate --no-header pyproject.toml --group dev -o requirements/dev.lock
	@$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
		--no-annotate --no-header pyproject.toml -o requirements/runtime.lock

clean: ## Remove the virtual environment and everything built here
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
