# Everything runs in its own environment, .venv, which is made when it is first needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test quick matrix lint types docs bench figures clean

run: $(READY)  ## The answer on Fashion-MNIST from the kept runs, then the study live on digits
	@$(BIN)/python -m experiments study --config configs/fashion-study.toml \
	  --kept docs/results/fashion-study --only findings
	@$(BIN)/python -m experiments study --only claims

test: $(READY)  ## All tests
	$(BIN)/python -m pytest -n auto

quick: lint types  ## Lint, types and a case of each of the library's tests
	$(BIN)/python -m pytest -n auto --quick

matrix: $(READY)  ## All tests on each installed Python, oldest and newest JAX and Optax; the package
	$(BIN)/nox

lint: $(READY)  ## Style and formatting of code, documents and workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/rumdl check .
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

types: $(READY)  ## Static types
	$(BIN)/basedpyright

docs: $(READY)  ## The site, in outputs/site/, with the lessons of the course executed
	$(BIN)/python -m sphinx -E -W --keep-going -d outputs/doctrees -c docs . outputs/site

bench: $(READY)  ## Speed, compared with Optax and, if it is installed, PyTorch
	$(BIN)/python -m benchmarks

figures: $(READY)  ## The documents' figures and tables, drawn again from the kept runs
	@set -e; for config in $(patsubst docs/figures/%/,%,$(wildcard docs/figures/*/)); do \
	  name=$$(sed -n '1s/^# python -m experiments \([a-z-]*\).*/\1/p' configs/$$config.toml); \
	  $(BIN)/python -m experiments $$name --config configs/$$config.toml \
	    --kept docs/results/$$config --output outputs/figures/$$config; \
	  for figure in docs/figures/$$config/*.png; do \
	    cp outputs/figures/$$config/$$(basename $$figure) $$figure; \
	  done; \
	  cp outputs/figures/$$config/tables.md docs/results/$$config/; \
	done
	$(BIN)/python -m docs.course.tables
	$(BIN)/python -m docs.decay_rules

clean:  ## Removes the environments, caches and results
	rm -rf $(VENV) .nox outputs .pytest_cache .ruff_cache .rumdl_cache .hypothesis build dist *.egg-info

$(READY): pyproject.toml constraints.txt setup.py adamw_jax/kernels/step.cc
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "adamw_jax needs Python 3.11 or later, and PYTHON is $(PYTHON): make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
