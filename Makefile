# Everything here works on a bare machine with python3 (3.11 or later), make and a C library.
PYTHON ?= python3
CORES ?= 2
BIN := .venv/bin
DEMO := data/demo

.PHONY: setup report test lab bench clean lock

setup: .venv/.complete

.venv/.complete: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

$(DEMO): | setup
	$(BIN)/fracsurv simulate $@ --profile demo --workers $(CORES)

report: setup $(DEMO)
	$(BIN)/fracsurv run $(DEMO) --profile demo --out reports/demo --cores $(CORES)

test: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/python -m pytest --nbval -n $(CORES) --dist loadfile tests notebooks

lab: setup
	$(BIN)/jupyter lab notebooks

bench: setup
	$(BIN)/python -m benchmarks.simulator
	$(BIN)/python -m benchmarks.real_followup

lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --extra dev --extra bench \
	  --custom-compile-command "make lock" pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv data/demo data/tiny reports .snakemake build *.egg-info .pytest_cache .ruff_cache
