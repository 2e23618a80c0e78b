# Everything from a machine with Python 3.10+ and make: each target sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The demo has three months. A root of one's own has months of its own.
ifeq ($(origin AUDIENCE_EXPLORER_ROOT),undefined)
DEMO_MONTHS := AUDIENCE_EXPLORER_END_MONTH=2024-03
endif
export AUDIENCE_EXPLORER_ROOT ?= $(CURDIR)/demo

# Where tests keep what they make: in memory, if it has 2 GB for that, for most of it is small databases.
TEMPORARY := $(shell [ "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)" -gt 2000000 ] 2>/dev/null \
  && echo /dev/shm || echo "$${TMPDIR:-/tmp}")

# Modules are compiled when they are first imported: pip would compile all, which takes as long as to install them.
# Where the environment forbids that, each process would compile all that it imports, which doubles what a command takes.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

STORIES := acceptance/*.py acceptance/ec2/*.py acceptance/browser/*.py

.PHONY: help demo ui sandbox test acceptance stories isolated-stories torture mutants lint wheel bench screenshot clean

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/.installed ## make a sample audience and find its segments
	@$(BIN)/audience-explorer demo --root "$(AUDIENCE_EXPLORER_ROOT)"
	@echo "\nThe reports, a page a category and month: $$($(BIN)/audience-explorer report --root "$(AUDIENCE_EXPLORER_ROOT)")"
	@echo "The segments are in $(AUDIENCE_EXPLORER_ROOT)/kmeans. See them, and change k, in the browser: make ui"

ui: $(VENV)/.installed ## open Dagster on what make demo gave, at http://127.0.0.1:3000
	@$(DEMO_MONTHS) VIRTUAL_ENV="$(abspath $(VENV))" DAGSTER_HOME="$$($(BIN)/audience-explorer home)" $(BIN)/dg dev --host 127.0.0.1

sandbox: demo $(VENV)/.installed-dev ## the same on EC2, played by this machine: no account, no root
	@$(DEMO_MONTHS) $(BIN)/python -m acceptance.sandbox --light --bring "$(AUDIENCE_EXPLORER_ROOT)" -- $(BIN)/dg dev --host 127.0.0.1

test: $(VENV)/.installed-dev ## run the tests; those that need Apache Spark run where Java 17+ is
	PYTEST_DEBUG_TEMPROOT=$(TEMPORARY) $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

acceptance: stories isolated-stories ## run the acceptance stories; sooner done with -j2 (needs: acceptance/README.md)

# Isolated machines share an image, which is built once: their stories run in one process, beside the others if asked.
# What hangs is ended; nothing is for taking long on a machine that is busy with much else.
stories: $(VENV)/.installed-bench
	$(BIN)/pytest --timeout 2700 -n 2 --dist loadfile -m "not isolated" $(STORIES)

isolated-stories: $(VENV)/.installed-bench
	$(BIN)/pytest --timeout 2700 -m isolated $(STORIES)

torture: $(VENV)/.installed-dev ## kill what can be killed at random moments, for MINUTES=10, repeatably with SEED=…
	TMPDIR=$(TEMPORARY) $(BIN)/python -m acceptance.torture rounds --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/.installed-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: ## install the wheel without constraints, on the oldest and newest Python here, and run the demo; or PYTHONS="…"
	.ci/wheel $(PYTHONS)

bench: $(VENV)/.installed-bench ## measure this beside Spark, DuckDB and Polars, for hours; try BENCH_ARGS=--quick
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

mutants: $(VENV)/.installed-dev ## seed faults, and see whether the tests notice; try MUTANTS_ARGS="--modules ami/boot.py"
	$(BIN)/python -m tests.mutants $(MUTANTS_ARGS)

screenshot: $(VENV)/.installed-dev ## make docs/demo.png and the figures beside it in the README anew (needs Chromium)
	$(BIN)/python -m docs.demo

clean: ## remove what the targets made, but for the virtual environment
	rm -rf "$(CURDIR)/.dagster_home" "$(CURDIR)/demo" .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e ".[ui]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@command -v java >/dev/null || echo "No Java: the tests of Apache Spark are left out" \
	  "(Debian: apt-get install openjdk-17-jre-headless)"
	$(PIP_INSTALL) -e ".[dev]"
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(PIP_INSTALL) -e ".[bench]"
	@touch $@
