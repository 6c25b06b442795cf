PYTHON ?= python
CONFIG ?= miniature
RUN ?= runs/miniature
LOWEST ?= build/lowest
LOWEST_OPTIONS ?=
PARITY ?= $(sort $(notdir $(patsubst %/requirements.txt,%,$(wildcard tests/parity/*/requirements.txt))))
PARITY_ENVS ?= $(HOME)/.cache/prip-parity

.PHONY: help install test test-slow lint format types wheel site miniature parity lowest
help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1: \2/p' Makefile

install:  ## install the checkout in editable mode, with all development tools
	$(PYTHON) -m pip install -e ".[dev]"

test:  ## run the default tests
	$(PYTHON) -m pytest

# Without demo and docs: gradio raises the floors of serve. LOWEST_OPTIONS: for example --torch-backend cpu
lowest:  ## run the tests with the lowest versions that setup.cfg admits, in an environment of their own
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install -q "uv >= 0.9"
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct $(LOWEST_OPTIONS) \
		-e ".[train,ray,evaluate,annotate,serve,quantize]" "pytest >= 8" "pytest-xdist >= 3.6" "psutil >= 6" "packaging >= 24" \
		"schemathesis >= 4" "selenium >= 4.25"
	$(LOWEST)/bin/python -m pytest tests/prip tests/training tests/inference --ignore-glob="*demo*"

test-slow:  ## run the tests that take minutes
	$(PYTHON) -m pytest -m slow

lint:  ## run ruff and codespell
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	codespell

format:  ## apply ruff's fixes and formatting
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:  ## run mypy
	$(PYTHON) -m mypy

wheel:  ## build dist/prip-*.whl
	$(PYTHON) -m build --wheel

site:  ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

parity:  ## regenerate the golden files, each with the original package in its own environment (PARITY="hpsv2" selects some)
	set -e; for package in $(PARITY); do \
		folder=tests/parity/$$package; environment=$(PARITY_ENVS)/$$package; \
		echo "== $$package"; \
		[ -x $$environment/bin/python ] || python3 -m venv $$environment; \
		$$environment/bin/python -m pip install -q -r $$folder/requirements.txt; \
		if [ -f $$folder/reference.txt ]; then \
			$$environment/bin/python -m pip install -q --no-deps -r $$folder/reference.txt; \
		fi; \
		$$environment/bin/python $$folder/make_golden.py; \
	done

miniature:  ## train and evaluate the whole miniature from scratch (CONFIG=smoke: a rehearsal of a minute and a half)
	prip-train world --config $(CONFIG) --run $(RUN)
	prip-train prepare --config $(CONFIG) --run $(RUN)
	prip-train encoder --config $(CONFIG) --run $(RUN)
	prip-train decoder --config $(CONFIG) --run $(RUN)
	prip-train rl --config $(CONFIG) --run $(RUN)
	prip evaluate --config $(CONFIG) --out $(RUN)/evaluation --run $(RUN)
	prip-train export --run $(RUN) --to $(RUN)/checkpoint
