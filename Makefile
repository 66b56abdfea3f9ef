# Perennial's commands; `make` alone lists them.
# PORT, HOST, WEB_CONCURRENCY and every setting of docs/operations.md may stand before or after `make run`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A stamp is newer than the list of packages that was installed last, so a second start asks pip nothing.
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
FUZZ := $(VENV)/.installed-fuzz
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-slow soak survive fuzz conformance check format screenshots bench clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf 'make %-11s %s\n' "$$name" "$$text"; done

run: $(RUN) ## the server, on http://127.0.0.1:8000 (PORT=, HOST=, WEB_CONCURRENCY=)
	@exec $(BIN)/gunicorn -c gunicorn.conf.py wsgi:app

# Tests wait more than they work: more of them than there are processors, a file's tests in one process, the longest
# files first (tests/conftest.py).
test: $(DEV) ## the tests (ARGS="-k sse -x" goes to pytest)
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(DEV) ## the tests that take minutes: load, memory, endurance
	@$(BIN)/python -m pytest -m slow_suite $(ARGS)

soak: $(DEV) ## ten minutes of mixed traffic with a reload each minute (ARGS="--minutes 1 --store redis")
	@$(BIN)/python -m tests.soak $(ARGS)

survive: $(DEV) ## every kind of stream through faults (ARGS="--episodes 2000 --seed 7")
	@$(BIN)/python -m tests.survive $(ARGS)

fuzz: $(FUZZ) ## ten minutes of Hypothesis over every parser and codec, ten of atheris (ARGS="--seconds 60")
	@$(BIN)/python -m tests.fuzz $(ARGS)

conformance: $(DEV) ## the Durable Streams protocol's own tests, with Node 20 (ARGS="sqlite-2 redis-1" chooses servers)
	@$(BIN)/python -m tests.conformance.run $(ARGS)

check: $(DEV) ## format, lint, types and the import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest --quiet tests/test_imports.py

format: $(DEV) ## format every file, mend what lint can mend
	@$(BIN)/ruff check --fix --quiet --exit-zero .
	@$(BIN)/ruff format .
	@$(BIN)/ruff check .

screenshots: $(DEV) ## every page in light, dark and at phone width, into screenshots/, to be looked at
	@$(BIN)/python -m tests.screenshots $(ARGS)

bench: $(RUN) ## the measurements of docs/performance.md (ARGS="--print --quick growth")
	@$(BIN)/python -m bench $(ARGS)

clean: ## remove what was made here: environment, caches; not instance/ and files/
	rm -rf $(VENV) bench/.venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo 'Perennial needs Python 3.11 or newer, and there is no $(PYTHON) here: make run PYTHON=/path/to/python3'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Perennial needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1): make run PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo 'The environment could not be made (on Debian and Ubuntu: apt install python3-venv).'; exit 1; }

$(RUN): requirements.txt | $(BIN)/python
	@echo 'Installing requirements.txt into $(VENV), once …'
	@$(PIP) -r requirements.txt
	@touch $@

$(DEV): requirements-dev.txt $(RUN)
	@echo 'Installing requirements-dev.txt into $(VENV), once …'
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(FUZZ): requirements-fuzz.txt $(DEV)
	@echo 'Installing requirements-fuzz.txt into $(VENV), once …'
	@$(PIP) -r requirements-fuzz.txt || echo 'There is no atheris for this machine: make fuzz goes on with Hypothesis alone.'
	@touch $@
