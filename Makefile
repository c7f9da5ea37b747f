# Two commands: `make lab` opens JupyterLab, `make test` runs every test. Both make the environment when it is missing.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The newest Python of 3.11 or later that is installed; override with `make PYTHON=/path/to/python lab`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then command -v $$p; break; fi; done)
# One thread per test process: two processes share two cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: lab test test-fast test-slow bench bench-peers lint docs lock clean env

lab: $(READY)
	@$(BIN)/mlipkit lab

test: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not browser"
	$(BIN)/python -m pytest -m "browser and not slow"

test-fast: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m "not slow and not browser and not full"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# Speed beside the peers that are installed; measures what benchmarks/results/bench.jsonl does not hold, prints the table.
bench: $(READY)
	$(ONE_THREAD) $(BIN)/python benchmarks/bench.py

# Environments of the peers whose pins do not go with ours.
bench-peers: build/peers/schnetpack/.ready build/peers/graph-pes/.ready

build/peers/%/.ready: benchmarks/peers/%.txt
	$(PYTHON) -m venv build/peers/$*
	build/peers/$*/bin/python -m pip install --quiet --requirement $<
	$(if $(filter schnetpack,$*),build/peers/$*/bin/python -m pip install --quiet --no-deps --ignore-requires-python schnetpack==2.2.0)
	@touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The pages of docs/ in site/; site/index.html opens in a browser as it is.
docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

env: $(READY)

$(READY): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "mlipkit needs Python 3.11 or newer and found none. Install it (Debian/Ubuntu: apt-get install python3 python3-venv; macOS: brew install python) or run: make PYTHON=/path/to/python3 lab"; exit 1; fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make environments. Debian/Ubuntu: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,test]"
	@touch $@

# After a deliberate change of versions: writes down what is installed now.
lock: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+cpu$$//' | grep -vE '^(pip|wheel)=='; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist site *.egg-info
