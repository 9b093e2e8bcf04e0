# Holdfast. Needs Python 3.11 or newer, make and git; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An environment keeps the extra that it was made with: the builds of vLLM overwrite each other's files.
HAS := $(if $(wildcard $(VENV)/.done),$(or $(shell cat $(VENV)/.done),cpu))
EXTRA ?= $(or $(HAS),cpu)
ifneq ($(if $(filter clean help,$(MAKECMDGOALS)),$(EXTRA),$(or $(HAS),$(EXTRA))),$(EXTRA))
$(error $(VENV) holds the $(HAS) extra: `make clean` first, or `make env EXTRA=$(EXTRA) VENV=.venv-$(EXTRA)`)
endif
# uv ignores pip's configuration: hand on local wheels where pip has some, else let uv find the CPU build of torch.
LINKS := $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)
# The cpu extra is installed as it was tested; without what would bring builds for CUDA along.
PINNED := $(if $(filter cpu,$(EXTRA)),--constraint constraints.txt --overrides overrides-cpu.txt)
UV_ENV := $(if $(LINKS),UV_FIND_LINKS="$(LINKS)") $(if $(filter cpu,$(EXTRA)),$(if $(LINKS),,UV_TORCH_BACKEND=cpu))

# Without compiled modules every start of Python, and of vLLM above all, compiles them anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env demo smoke test compiled slow lint bench torture clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(VENV)/.done ## make .venv and install Holdfast with its cpu (or EXTRA=gpu) and dev extras

$(VENV)/.done: pyproject.toml constraints.txt overrides-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(UV_ENV) $(BIN)/uv pip install --quiet --python $(BIN)/python -r pyproject.toml --extra $(EXTRA) --extra dev $(PINNED)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@echo $(EXTRA) > $@

demo: env ## the whole job on the built-in organism: train, serve, measure, report
	$(BIN)/holdfast

smoke: env ## the smallest complete run
	$(BIN)/holdfast experiment=smoke

# Three files at a time, because some mostly wait; one thread each, since two would wait for each other (docs/LOG.md).
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: env ## linters, types and all tests but the slow ones
	$(MAKE) --jobs 2 lint compiled
	$(PYTEST)

# Else three workers that start at once each compile what they import.
compiled: env
	@-$(BIN)/python -m pytest --collect-only -qq >/dev/null

slow: env ## the tests that take minutes
	$(UV_ENV) $(BIN)/uv pip install --quiet --python $(BIN)/python -r pyproject.toml --extra fit $(PINNED)
	$(PYTEST) --slow

lint: env ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

bench: env ## speed against the ways others do it, side by side; results in benchmarks/results
	$(BIN)/python -m benchmarks

FAULTS ?= 200
SEED ?= 0
torture: env ## FAULTS=200 random faults (SEED=0; MINUTES=… stops, the same command goes on); results in benchmarks/results
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture --faults $(FAULTS) --seed $(SEED) $(if $(MINUTES),--minutes $(MINUTES))

clean: ## remove the environment and caches of tools; run folders stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
