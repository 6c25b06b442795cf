PYTHON ?= python
RUN ?= runs/miniature
PARITY ?= $(sort $(notdir $(patsubst %/requirements.txt,%,$(wildcard tests/parity/*/requirements.txt))))
PARITY_ENVS ?= $(HOME)/.cache/prip-parity

.PHONY: help install test test-slow lint format types wheel site miniature parity
help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1: \2/p' Makefile

install:  ## install the checkout, editable, with everything that a contributor needs
	$(PYTHON) -m pip install -e ".[dev]"

test:  ## the default tests
	$(PYTHON) -m pytest

test-slow:  ## the tests that take minutes
	$(PYTHON) -m pytest -m slow

lint:  ## ruff and codespell
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	codespell

format:  ## mend what ruff can mend
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:  ## mypy
	$(PYTHON) -m mypy

wheel:  ## build dist/prip-*.whl (build/ is removed first: setuptools would pack what an older build left there)
	rm -rf build
	$(PYTHON) -m build --wheel

site:  ## build the documentation's pages into site/
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

parity:  ## make the golden files anew, each by the real package in an environment of its own (PARITY="hpsv2": only those)
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

miniature:  ## train all of PRIP in the miniature from scratch, and measure it
	prip-train world --config miniature --run $(RUN)
	prip-train prepare --config miniature --run $(RUN)
	prip-train encoder --config miniature --run $(RUN)
	prip-train decoder --config miniature --run $(RUN)
	prip-train rl --config miniature --run $(RUN)
	prip evaluate --config miniature --out $(RUN)/evaluation --run $(RUN)
	prip-train export --run $(RUN) --to $(RUN)/checkpoint
