# `make demo` explains real photographs, `make test` checks everything, `make docs` writes the site into site/.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test docs clean

demo: .venv/demo
	$(BIN)/sscam demo --out demo

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

docs: .venv/docs
	$(BIN)/mkdocs build --strict --site-dir site

# A stamp file per extra, so that an edited pyproject.toml reinstalls.
.venv/%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv demo site .pytest_cache .ruff_cache .mypy_cache
