# Two commands matter: `make demo` shows the main job end to end, `make test` proves it. Both set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROOFS := proof
# One more than there are cores: the tests that start whole processes wait for them.
TESTERS := $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 1) + 1 )))
.DEFAULT_GOAL := help
.PHONY: help setup demo up test types tests proofs faults check bench sbom docs lock clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready ## Build .venv from the lock, with the deployr command in it

# The stamp is newer than the lock and the project file, or everything is installed again from the lock.
$(VENV)/ready: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "deployr needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 setup"; exit 1; }
	@echo "Setting up .venv from the lock (once; a minute or two) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## Train, serve, replay a week of orders, label and measure, on this machine alone
	@$(BIN)/deployr demo

up: setup ## Start a mock EMR and the function host with a trained model, to try calls on; Ctrl-C stops both
	@$(BIN)/deployr up

test: setup ## Lint, types and the tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory -j 2 types tests

# Beside the tests: some of them wait for processes, and a core for them.
types: setup
	@$(BIN)/mypy

# Files in the order of their folders: whole processes first, so that at the end the short ones fill what is left of a core.
tests: setup
	@$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder -m "not proof"

proofs: setup ## Run the long proofs: workers killed at every transition, hospitals with one fault each
	@$(BIN)/python -m pytest -n auto -m "$(PROOFS)"

faults: setup ## Run every row of the fault table; the last line counts the rows that pass
	@$(BIN)/python -m tests.faults

bench: setup ## Measure speed and memory as ratios; writes benchmarks/results.json
	@$(BIN)/python -m benchmarks

sbom: setup ## List the deployed app's packages as CycloneDX, with their hashes, in build/sbom.cdx.json
	@mkdir -p build
	@$(BIN)/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --output-reproducible \
	  --output-format JSON --spec-version 1.6 --output-file build/sbom.cdx.json

docs: setup ## Build the documentation site in build/site; needs nothing from outside, and any warning fails it
	@$(BIN)/python -m tools.site.build
	@echo "build/site/index.html"

lock: ## Pin every dependency again, with hashes (needs uv)
	@bash tools/lock.sh

clean: ## Remove what setup and the tests made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .deployr *.egg-info build
