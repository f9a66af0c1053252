# `make train` and `make test` need only Python 3.11 or later.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test

train: .venv/installed
	$(BIN)/python train.py preprocess=noise

test: .venv/installed-dev
	./check

# Reinstalls only when the requirements change.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@
