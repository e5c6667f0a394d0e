# Everything works first thing on a machine that has git, make and Python 3.11 or newer with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP_INSTALL := bin/pip --quiet --disable-pip-version-check install
# The demo needs little, and has an environment of its own unless that for all else is there.
DEMO := $(if $(wildcard $(READY)),$(VENV),.venv-demo)
export NO_MKDOCS_2_WARNING := 1
# Tests start hundreds of programs, which are not all to compile the same modules.
export PYTHONDONTWRITEBYTECODE :=
# They keep thousands of files for good: where there is memory for these, it does not take a disk.
export PYTEST_DEBUG_TEMPROOT ?= $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4e6 {print $$6}')
# Each process takes file after file, and page after page, whose blocks go on from one another. There
# is one more than cores, since many tests wait for a third of their time: 13 minutes instead of 16.
# A test that hangs fails after two minutes. One that kills its process is told as failed and, since
# its file is begun again there, run again: so that is done no more than twice.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
TEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 2 \
	--timeout 120 --timeout-method signal
# Tests of real servers, processes and browsers also depend on a machine that others use. As CPython's
# do, those that failed run once more, one after another; that they failed at first stays in the output.
TEST_AGAIN := $(BIN)/python -m tests.support.again
# Whose output is told as each of them ends: they need nothing of one another.
STATIC := ruff-format ruff-check mypy pyright verifytypes mkdocs
BENCH := .venv-bench

.PHONY: demo test proof check $(STATIC) docs bench format dist lock clean

demo: $(DEMO)/.ready  ## watch this machine, live, for 15 seconds (SECONDS=60 for longer)
	@PYTHONPATH=src $(DEMO)/bin/python examples/machine.py $(if $(SECONDS),--seconds $(SECONDS))

test: $(READY)  ## run the tests
	$(TEST)

proof: $(READY)  ## run the tests with many more examples, stores and kills; it takes an hour
	RUN_TASK_PROOF=1 $(TEST) -o faulthandler_timeout=1200 --timeout 900

check: $(READY)  ## all that has to be green before a change lands
	@$(MAKE) --no-print-directory --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) $(STATIC)
	$(TEST) || { [ $$? = 1 ] && $(TEST_AGAIN); }

pyright: $(READY)
	$(BIN)/pyright
mypy: $(READY)
	$(BIN)/mypy
verifytypes: $(READY)
	PYTHONPATH=src $(BIN)/pyright --pythonpath $(BIN)/python --ignoreexternal --verifytypes run_task
mkdocs: $(READY)
	$(BIN)/mkdocs --quiet build --strict
ruff-format: $(READY)
	$(BIN)/ruff format --check .
ruff-check: $(READY)
	$(BIN)/ruff check .

docs: $(READY)  ## build the documentation; begin at site/index.html
	$(BIN)/mkdocs build --strict

bench: $(BENCH)/.ready  ## measure speed and punctuality, beside a bare loop and peers (QUICK=1, ONLY=dispatch)
	$(BENCH)/bin/python -m benchmarks $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

format: $(READY)  ## lay the code out
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dist: $(READY)  ## build the wheel and the sdist into dist/
	rm -rf dist
	$(BIN)/hatchling build

LOCK := uv pip compile --python-version 3.11 --universal --generate-hashes --no-emit-index-url \
	--no-annotate --no-header pyproject.toml

lock:  ## bring requirements-*.txt up to date with pyproject.toml
	$(LOCK) --group dev --group build --output-file requirements-dev.txt
	$(LOCK) --group bench --group build --group peers --output-file requirements-bench.txt
	$(LOCK) --group demo --constraints requirements-dev.txt --output-file requirements-demo.txt

$(READY): requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/$(PIP_INSTALL) --require-hashes -r requirements-dev.txt
	$(VENV)/$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# Nothing is compiled ahead: the demo imports a small part of what is installed.
.venv-demo/.ready: requirements-demo.txt
	$(PYTHON) -m venv .venv-demo
	.venv-demo/$(PIP_INSTALL) --no-compile --require-hashes -r requirements-demo.txt
	@touch $@

# The peers are large: where they do not install, the rest is measured without them.
$(BENCH)/.ready: requirements-bench.txt pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/$(PIP_INSTALL) --require-hashes -r requirements-bench.txt \
		|| (echo "the peers do not install here: skipped"; \
		$(BENCH)/$(PIP_INSTALL) --require-hashes -r requirements-dev.txt)
	$(BENCH)/$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

clean:  ## remove what was made
	rm -rf $(VENV) .venv-demo $(BENCH) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage dist build site
