# Two commands: `make demo` explains real photographs, `make test` checks everything.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test clean

demo: .venv/demo
	$(BIN)/sscam demo --out demo

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

# A stamp file per extra, so that an edited pyproject.toml reinstalls.
.venv/%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv demo .pytest_cache .ruff_cache .mypy_cache
