# `make demo` explains real photographs, `make docs` writes the site into site/. `make check` is for the inner loop,
# `make test` for a commit, `make test-all` runs what `make test` leaves out as well, except
# `make accelerators PYTHON=python3.12`, which compiles for TPUs and GPUs for two hours. PYTHON=python3.13 chooses another.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# One environment per version of Python, so that none is used by mistake for another.
VENV := .venv/$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
BIN := $(VENV)/bin

.PHONY: demo check lint test test-all test-zoo accelerators reliability docs clean

demo: $(VENV)/.demo
	$(BIN)/sscam demo --out demo

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/pytest tests/cams/test_registry.py tests/cams/test_refusals.py tests/cams/test_parity.py tests/test_api.py

test: $(VENV)/.dev
	$(BIN)/pytest

# In one run, so that slow cases find the programs that quick ones have compiled. The app's tests need gradio, and those in
# a browser Chromium: `apt-get install chromium`.
test-all: lint $(VENV)/.app
	$(BIN)/pytest -m "not zoo"

# Models of other frameworks. PYTHON=python3.12 takes the newer packages of the extra zoo.
test-zoo: $(VENV)/.dev $(VENV)/.keras $(VENV)/.torch $(VENV)/.transformers $(VENV)/.onnx $(VENV)/.jimm
	KERAS_BACKEND=jax $(BIN)/pytest -m "slow or not slow" tests/adapt

accelerators: $(VENV)/.dev $(VENV)/.aot
	JAX_PLATFORMS=cpu $(BIN)/pytest -m slow -n 1 tests/accelerators

# The short form is in `make test-all`: tests/reliability. This takes half an hour and prints the figures of docs/tested.md.
reliability: $(VENV)/.dev
	$(BIN)/pytest -m "slow or not slow" tests/reliability
	$(BIN)/python -m tests.reliability.mutations 20000 5000
	$(BIN)/python -m tests.reliability.campaign 100

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict --site-dir site

# A stamp file per extra, so that an edited pyproject.toml reinstalls.
$(VENV)/.%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv demo site .hypothesis .pytest_cache .ruff_cache .mypy_cache
