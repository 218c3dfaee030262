# Every target sets up what it needs: its own .venv, made once and made again when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo check test bench

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

install: $(BIN)/installed ## Make .venv with featx (editable) and all that developing it needs

$(BIN)/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(BIN)/installed ## Run the whole job on images that are on the disk after installing
	$(BIN)/featx demo

check: $(BIN)/installed ## Lint, formatting, types, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: $(BIN)/installed ## Run all tests and doctests (real weights and photos where FEATX_ASSETS or ../shared/assets is there)
	$(BIN)/python -m pytest

bench: $(BIN)/installed ## Measure, in 20 minutes; writes docs/performance.md (PEERS=python: other packages too)
	$(BIN)/python benchmarks/grid_search.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/few_shot.py
	@mkdir -p build
	$(BIN)/python benchmarks/extraction.py --json build/extraction.json $(if $(PEERS),--peers-python $(PEERS))
