# Everything here works on a bare machine with python3 (3.11 or later), make and a C library.
PYTHON ?= python3
CORES ?= 2
BIN := .venv/bin
DEMO := data/demo

.PHONY: setup report pictures test lab bench clean lock

setup: .venv/.complete

.venv/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	  "fracsurv needs Python 3.11 or later, $(PYTHON) is %d.%d; give another: make PYTHON=python3.12 setup" % v[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@# compiled once here, not at every start where Python may not write beside the modules (PYTHONDONTWRITEBYTECODE)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

$(DEMO): | setup
	$(BIN)/fracsurv simulate $@ --profile demo --workers $(CORES)

# after a change of what was fitted: make report ANEW=--anew
report: setup $(DEMO)
	$(BIN)/fracsurv run $(DEMO) --profile demo --out reports/demo --cores $(CORES) $(ANEW)

# the README's, from the demo report; needs Chromium
pictures: setup
	$(BIN)/python -m benchmarks.pictures reports/demo

test: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	rm -rf reports/tiny  # the notebooks shall fit, not show what was fitted before
	@# one thread a process: several processes with several threads each wait for one another
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest --nbval -n $(CORES) --dist loadfile --no-loadscope-reorder tests notebooks

lab: setup
	$(BIN)/jupyter lab notebooks

bench: setup
	$(BIN)/python -m benchmarks.simulator
	$(BIN)/python -m benchmarks.real_followup

lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --extra study --extra dev --extra bench --extra slurm \
	  --custom-compile-command "make lock" pyproject.toml --output-file requirements.lock

# what make has made and caches; cohorts and runs of your own stay
clean:
	rm -rf .venv data/demo data/tiny data/.*.lock reports/demo reports/tiny .snakemake build *.egg-info
	rm -rf .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
