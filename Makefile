# Every target makes its own environment first: uv where it is installed, the standard venv and pip where it isn't.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow lint bench docs setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	  test -x $(PY) || uv venv --quiet --python $(PYTHON) $(VENV); \
	  uv pip install --quiet --python $(PY) -e '.[dev]'; \
	else \
	  test -x $(PY) || $(PYTHON) -m venv $(VENV); \
	  $(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $(STAMP)

demo: $(STAMP)  ## the main job: teacher pairs, FTD training, one-step upscaling, report.html
	$(PY) -m fluxsr demo --output outputs/demo

test: $(STAMP)
	$(PY) -m pytest -n 2

test-slow: $(STAMP)  ## everything but what needs a GPU or a hub
	$(PY) -m pytest -m "not gpu and not network" --timeout 1800

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy fluxsr/flows fluxsr/losses fluxsr/evaluation fluxsr/protocols.py

bench: $(STAMP)  ## ratios, all measured in one run on this machine
	$(PY) -m benchmarks

docs: $(STAMP)  ## the documentation, into site/
	@$(PY) -c "import material, mkdocstrings" 2>/dev/null || { \
	  if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(PY) -e '.[docs]'; \
	  else $(PY) -m pip install --quiet --disable-pip-version-check -e '.[docs]'; fi; }
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) outputs build dist site
