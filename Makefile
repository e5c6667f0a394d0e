# Everything works first thing on a machine that has git, make and Python 3.11 or newer with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export NO_MKDOCS_2_WARNING := 1
BENCH := .venv-bench

.PHONY: demo test check docs bench format lock clean

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
	$(BIN)/mkdocs --quiet build --strict
	$(BIN)/pytest

docs: $(READY)  ## build the documentation; begin at site/index.html
	$(BIN)/mkdocs build --strict

bench: $(BENCH)/.ready  ## measure speed and punctuality, beside a bare loop and peers (QUICK=1, ONLY=dispatch)
	$(BENCH)/bin/python -m benchmarks $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

format: $(READY)  ## lay the code out
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## bring requirements-dev.txt up to date with pyproject.toml
	uv pip compile --python-version 3.11 --universal --group dev --group build pyproject.toml \
		--generate-hashes --no-emit-index-url --no-annotate --no-header \
		--output-file requirements-dev.txt
	uv pip compile --python-version 3.11 --universal --group bench --group build --group peers \
		pyproject.toml --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--output-file requirements-bench.txt

$(READY): requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip --quiet --disable-pip-version-check install --require-hashes -r requirements-dev.txt
	$(BIN)/pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $@

# The peers are large: where they do not install, the rest is measured without them.
$(BENCH)/.ready: requirements-bench.txt pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip --quiet --disable-pip-version-check install --require-hashes -r requirements-bench.txt \
		|| (echo "the peers do not install here: skipped"; \
		$(BENCH)/bin/pip --quiet --disable-pip-version-check install --require-hashes -r requirements-dev.txt)
	$(BENCH)/bin/pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $@

clean:  ## remove what was made
	rm -rf $(VENV) $(BENCH) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage dist build site
