# Two commands are enough: `make images` and `make test`. Both set everything up on a machine that has
# Python 3.11 or later and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= logical
PYTEST := $(BIN)/python -m pytest -q --durations=15
PARALLEL := -n $(WORKERS) --dist loadgroup

.PHONY: images test check lint fast smoke stats fix clean help

help:            ## show the verbs
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/  -/'

images: $(VENV)/.runtime  ## install, then train, sample, time and score the reference models
	$(BIN)/genbench run --suite images

test: $(VENV)/.develop   ## install, then run all tests
	$(PYTEST) $(PARALLEL) -m "not alone"
	$(PYTEST) -m alone

check: lint fast ## ruff, mypy, import-linter and the fast tests

lint: $(VENV)/.develop   ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fast: $(VENV)/.develop   ## the tests that take seconds
	$(PYTEST) $(PARALLEL) -m "not slow and not gpu and not network and not alone"

smoke: $(VENV)/.runtime  ## every reference model at 8 pixels in under a minute
	$(BIN)/genbench run --suite images_smoke --fresh

benchmarks: $(VENV)/.develop  ## cost of the harness itself
	$(BIN)/python -m pytest -q tests/benchmarks --benchmark-enable

stats: $(VENV)/.runtime  ## remake the shipped reference statistics
	for size in 8 16 32 64; do $(BIN)/genbench stats "shapes[resolution=$$size]" --features shapes_net \
		-o reference_stats/shapes-$$size/shapes_net-train.npz; done
	$(BIN)/genbench stats tones --features tones_net -o reference_stats/tones/tones_net-train.npz
	$(BIN)/genbench stats "tones[length=512]" --features tones_net -o reference_stats/tones-512/tones_net-train.npz

fix: $(VENV)/.develop    ## format and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove the environment and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .import_linter_cache

$(VENV)/.runtime: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "genbench needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.develop: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "genbench needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@ $(VENV)/.runtime
