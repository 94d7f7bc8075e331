# Everything runs in an environment of its own, .venv, which is made when first needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test lint types bench clean

run: $(READY)  ## The study on handwritten digits: verdicts, tables, plots, report
	$(BIN)/python -m experiments study

test: $(READY)  ## All tests
	$(BIN)/python -m pytest -n auto

lint: $(READY)  ## Style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## Static types
	$(BIN)/basedpyright

bench: $(READY)  ## Speed, beside Optax and (where it is installed) PyTorch
	$(BIN)/python -m benchmarks

clean:  ## Removes the environment, caches and results
	rm -rf $(VENV) outputs .pytest_cache .ruff_cache .hypothesis build *.egg-info

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "adamw_jax needs Python 3.11 or later, and PYTHON is $(PYTHON): make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
