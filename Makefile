# Two commands do everything: `make demo` and `make test`.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
RUN_DEMO = $(BIN)/rebalance run digits

# Two test processes of one thread each: what a machine of two cores does best.
# In the order of the tree, the many small files of rebalance last: none is left to run alone at the end.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
LOWEST := $(VENV)/lowest

.PHONY: demo test test-slow test-lowest lint clean

demo: $(VENV)/.installed
	$(RUN_DEMO)

test: $(VENV)/.installed-dev lint
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.installed-dev lint
	$(PYTEST) --timeout 3600

test-lowest: $(LOWEST)/.installed
	PYTHONPATH=$(LOWEST) $(BIN)/python -m pytest tests/rebalance/resampling tests/rebalance/samplers \
		tests/generators/test_estimator.py tests/pipelines/test_estimator.py tests/pipelines/test_estimator_contract.py
	PYTHONPATH=$(LOWEST) $(BIN)/python -m pytest -p no:warnings -m "not slow" tests/generators \
		tests/rebalance/test_backbones.py tests/rebalance/backbones tests/pipelines/test_pretrained.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

$(LOWEST)/.installed: tests/lowest.txt | $(VENV)/.installed-dev
	rm -rf $(LOWEST)
	$(BIN)/python -m pip install --quiet --no-deps --target $(LOWEST) --requirement tests/lowest.txt
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
