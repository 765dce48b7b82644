# `make demo` and `make test` are all that a fresh machine needs: Python 3.11, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO = 0

.PHONY: help setup demo test coverage test-slow lint format lock clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(INSTALLED) ## Make .venv from the locked dependencies

# torch: the CPU build where an index offers it, else PyPI's build with its CUDA libraries.
$(INSTALLED): pyproject.toml requirements/lock.txt requirements/torch-cpu.txt requirements/torch-cuda.txt requirements/documents.txt requirements/oracles.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "glyphmill is locked for Python 3.11, this is " + sys.version.split()[0] + ": set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes --no-deps -r requirements/lock.txt
	$(PIP) install --quiet --require-hashes --no-deps -r requirements/torch-cpu.txt \
	  || $(PIP) install --quiet --require-hashes --no-deps -r requirements/torch-cuda.txt
	$(PIP) download --quiet --require-hashes --no-deps --no-binary :all: --no-build-isolation -r requirements/documents.txt -d $(VENV)/share/glyphmill
	$(PIP) install --quiet --require-hashes --no-deps --upgrade --target $(VENV)/share/oracles -r requirements/oracles.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED) ## Fonts -> pictures -> judged shards -> trained VAE -> out/demo/report.html
	@$(BIN)/glyphmill demo --out out/demo

test: $(INSTALLED) ## Lint, types, floors, tests (under 10 minutes on 2 cores)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2

coverage: $(INSTALLED) ## The tests again with coverage (about twice the time)
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term

test-slow: $(INSTALLED) ## The slow tests as well
	$(BIN)/python -m pytest -m 'not gpu'

lint: $(INSTALLED) ## Ruff and the type checker alone
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: $(INSTALLED) ## Let ruff write the code its way
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

LOCK := uv pip compile --quiet --upgrade --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-annotate --no-header
lock: ## Write the files of requirements/ again from pyproject.toml (needs uv)
	$(LOCK) requirements/torch.in --output-file requirements/torch-cuda.txt
	$(LOCK) --no-deps requirements/oracles.in --constraint requirements/torch-cuda.txt --output-file requirements/oracles.txt
	$(LOCK) pyproject.toml --all-extras --group dev --override requirements/overrides.txt --constraint requirements/torch-cuda.txt \
	  $$(grep -oE '^(torch|triton|nvidia|cuda)[a-z0-9-]*' requirements/torch-cuda.txt | sed 's/^/--no-emit-package /') --no-emit-package torchvision --output-file requirements/lock.txt

clean: ## Remove the environment and everything made
	rm -rf $(VENV) out .coverage* .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
