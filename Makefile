# make run      set up and run the main job: dialin run digits
# make test     set up and pass the tests
# make test-slow  the slowest tests: what waits until something counts as hung, and the slower faults
# make lint     ruff and mypy
# make wheel    build the wheel, install it into an empty environment elsewhere, and use it there
# make bench    the benchmarks, with their tables
# make bench-search   how good the search is beside its peers, in environments of its own (data: DIALIN_LCBENCH, DIALIN_CONDITIONAL)
# make faults   kill -9 and the like, many times, with a table of what came of it
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: run test test-slow lint wheel bench bench-search faults setup setup-dev clean

run: $(RUN_STAMP)
	$(BIN)/dialin run digits

test: $(DEV_STAMP)
	$(BIN)/python -m pytest

test-slow: $(DEV_STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: | $(BIN)/python
	PYTHON=$(abspath $(BIN))/python .ci/try-wheel

bench: $(DEV_STAMP)
	$(BIN)/python tests/benchmarks/overhead.py
	$(BIN)/python tests/benchmarks/start.py
	$(BIN)/python tests/benchmarks/flatness.py
	$(BIN)/python tests/benchmarks/scheduler.py
	$(BIN)/python tests/benchmarks/recorder.py
	$(BIN)/python tests/benchmarks/load.py
	$(BIN)/python tests/benchmarks/large_study.py
	$(BIN)/python tests/benchmarks/training.py
	$(BIN)/python tests/benchmarks/doctor.py
	$(BIN)/python tests/benchmarks/range_test.py
	$(BIN)/python tests/benchmarks/lr_rules.py

# Peers want older packages than we do, and others newer ones: two environments of their own.
bench-search:
	test -d .venv-bench || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --requirement tests/benchmarks/requirements.txt
	test -d .venv-peers || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --requirement tests/benchmarks/requirements-peers.txt
	mkdir -p build && rm -f build/search-*.json
	set -e; for table in lcbench conditional; do \
	  search="tests/benchmarks/search_quality.py --table $$table"; \
	  .venv-bench/bin/python $$search --from dialin stock syne_tune --json build/search-$$table.json; \
	  .venv-peers/bin/python $$search --from optuna_gp smac neps --json build/search-$$table-peers.json; \
	  .venv-bench/bin/python $$search --join build/search-$$table.json build/search-$$table-peers.json; \
	done

faults: $(DEV_STAMP)
	$(BIN)/python tests/faults/run.py

setup: $(RUN_STAMP)

setup-dev: $(DEV_STAMP)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "dialin needs Python 3.11 to 3.13, and this is " + sys.version.split()[0] + "; name another with: make PYTHON=python3.12 run")'
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(RUN_STAMP)

clean:
	rm -rf $(VENV) .venv-bench .venv-peers build dist
