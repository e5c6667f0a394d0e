# Everything works first thing on a machine that has git, make and Python 3.11 or newer with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check format lock clean

demo: $(READY)  ## watch this machine, live, for 15 seconds (SECONDS=60 for longer)
	@$(BIN)/python examples/machine.py $(if $(SECONDS),--seconds $(SECONDS))

test: $(READY)  ## run the tests
	$(BIN)/pytest

check: $(READY)  ## all that has to be green before a change lands
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	PYTHONPATH=src $(BIN)/pyright --pythonpath $(BIN)/python --ignoreexternal --verifytypes run_task
	$(BIN)/pytest

format: $(READY)  ## lay the code out
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## bring requirements-dev.txt up to date with pyproject.toml
	uv pip compile --python-version 3.11 --universal --group dev --group build pyproject.toml \
		--generate-hashes --no-emit-index-url --no-annotate --no-header \
		--output-file requirements-dev.txt

$(READY): requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip --quiet --disable-pip-version-check install --require-hashes -r requirements-dev.txt
	$(BIN)/pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $@

clean:  ## remove what was made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage dist build
