PYTHON ?= python
CONFIG ?= miniature
RUN ?= runs/miniature
PARITY ?= $(sort $(notdir $(patsubst %/requirements.txt,%,$(wildcard tests/parity/*/requirements.txt))))
PARITY_ENVS ?= $(HOME)/.cache/prip-parity

.PHONY: help install test test-slow lint format types wheel site miniature parity
help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1: \2/p' Makefile

install:  ## install the checkout in editable mode, with all development tools
	$(PYTHON) -m pip install -e ".[dev]"

test:  ## run the default tests
	$(PYTHON) -m pytest

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
