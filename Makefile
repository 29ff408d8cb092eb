# vargen's commands. `make quickstart` is the place to start; `make help` lists the rest.

VENV := .venv
BIN := $(VENV)/bin
# A tool's cache of compiled programs: runs and tests after the first start faster.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.2
WORKERS ?= 2
ARGS ?=

.PHONY: help install quickstart test test-slow test-fuzz test-faults lint format docs notebook benchmarks clean

help:
	@echo "make quickstart   install, then train, sample and evaluate on the digits: runs/quickstart/report.html"
	@echo "make install      the virtual environment .venv with vargen in it"
	@echo "make test         the tests            (make test ARGS='-k orders' picks some)"
	@echo "make test-slow    the tests that take minutes"
	@echo "make test-fuzz    the tests with drawn examples, drawn anew, many times as many"
	@echo "make test-faults  training under 400 injected failures: benchmarks/results/faults.json"
	@echo "make lint         check style          make format   mend it"
	@echo "make docs         the documentation: build/site/index.html"
	@echo "make notebook     execute docs/notebooks/quickstart.ipynb"
	@echo "make benchmarks   measure speed; results go to benchmarks/results/"
	@echo "make clean        remove .venv and caches"

install: $(VENV)/.installed

# Stamp files: an install is redone only when the requirements change.
$(VENV)/.installed: pyproject.toml setup.py .ci/install
	@bash .ci/install $(VENV) .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@bash .ci/install $(VENV) '.[test,emoji]'
	@bash .ci/install-compilers $(VENV)
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@bash .ci/install $(VENV) '.[docs]'
	@touch $@

quickstart: install
	@$(BIN)/vargen quickstart --config var:digits --workdir runs/quickstart $(ARGS)

# Some machines forbid Python to keep what it compiled: every process of a test would compile all of JAX again.
test test-slow test-fuzz test-faults: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: $(VENV)/.installed-test $(VENV)/.installed-docs
	$(BIN)/python -m pytest -m slow $(ARGS)

# Drawn examples are the same in every run of `make test`; here they are new, and FUZZ times as many.
FUZZ ?= 20
test-fuzz: $(VENV)/.installed-test
	VARGEN_FUZZ=$(FUZZ) $(BIN)/python -m pytest -n $(WORKERS) -k drawn $(ARGS)

# Training is killed, stopped and starved 400 times; benchmarks/results/faults.json says how long that takes.
test-faults: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.faults $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build $(ARGS)

notebook: $(VENV)/.installed-test
	cd docs/notebooks && ../../$(BIN)/jupyter-execute quickstart.ipynb

# Those that need nothing but this machine; precision and jacobi take trained models, test-faults is above.
benchmarks: $(VENV)/.installed-test
	@set -e; for name in startup kernels train_step picture_sizes sampling; do \
	  echo "== benchmarks.$$name"; $(BIN)/python -m benchmarks.$$name; done

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache build *.egg-info
