# Every target makes its own environment first: uv where it is installed, the standard venv and pip where it isn't.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow test-oldest lint bench gpu docs dist setup clean

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

# The oldest Python is looked for by number; where there is none, the one at hand does.
OLDEST := .venv-oldest
OLDEST_PYTHON ?= 3.10

test-oldest:  ## the tests with the oldest versions that pyproject.toml allows; needs uv, which can choose them
	@command -v uv >/dev/null 2>&1 || { echo "make test-oldest needs uv: pip cannot choose the lowest versions" >&2; exit 1; }
	@test -x $(OLDEST)/bin/python || uv venv --quiet --python $(OLDEST_PYTHON) $(OLDEST) 2>/dev/null || \
	  uv venv --quiet --python $(PYTHON) $(OLDEST)
	uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct -e '.[dev]'
	$(OLDEST)/bin/python -m pytest -n 2

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy fluxsr

bench: $(STAMP)  ## ratios, all measured in one run on this machine
	$(PY) -m benchmarks

gpu: $(STAMP)  ## for a machine with a GPU: its tests, the 12 B benchmark, and a page of results in outputs/gpu
	@$(PY) -m benchmarks.gpu

docs: $(STAMP)  ## the documentation, into site/
	@$(PY) -c "import material, mkdocstrings" 2>/dev/null || { \
	  if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(PY) -e '.[docs]'; \
	  else $(PY) -m pip install --quiet --disable-pip-version-check -e '.[docs]'; fi; }
	@# Not --quiet: it would drop the warnings, and strict with them.
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

dist:  ## sdist, and the wheel that is built from it, into dist/; the build makes its own environment
	rm -rf dist
	@if command -v uv >/dev/null 2>&1; then uv build --quiet --out-dir dist; \
	else \
	  test -x .venv-build/bin/python || $(PYTHON) -m venv .venv-build; \
	  .venv-build/bin/python -m pip install --quiet --disable-pip-version-check build; \
	  .venv-build/bin/python -m build --outdir dist; \
	fi
	@ls dist

clean:
	rm -rf $(VENV) $(OLDEST) .venv-build outputs build dist site
