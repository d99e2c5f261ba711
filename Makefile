# `make demo` and `make test` do all the set-up themselves; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := demo
COMPARE := compare

.DEFAULT_GOAL := help
.PHONY: help install demo test soak bench compare lint types format clean

help:
	@echo "make install an environment in $(VENV)/, PyTorch in it (several GB); the others do that themselves"
	@echo "make demo    miniature datasets -> shards -> two trained models -> scores and pictures, in $(DEMO)/ (about 10 min)"
	@echo "make test    all tests"
	@echo "make soak    the long matrices"
	@echo "make compare the reference project's recipe against ours on miniatures, into $(COMPARE)/ (90 min on 2 cores)"
	@echo "make bench   speed beside the usual tools, which go into .venv-bench/ (over 1 GB)"
	@echo "make lint    ruff; make types: mypy; make format: rewrite in place"
	@echo "make clean   remove $(DEMO)/, $(COMPARE)/, $(VENV)/ and .venv-bench/"

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; run: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) cannot make an environment; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV) (PyTorch alone is several GB; a few minutes)" >&2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train,dev]'
	@touch $@

install: $(READY)

demo: $(READY)
	@BIN=$(BIN) OUT=$(DEMO) ./demo.sh

test: $(READY)
	$(BIN)/python -m pytest -n 2

soak: $(READY)
	$(BIN)/python -m pytest -n 2 -m soak

bench: $(READY)
	$(BIN)/python tests/benchmarks

compare: $(READY)
	$(BIN)/python tests/compare --out $(COMPARE)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(DEMO) $(COMPARE) $(VENV) .venv-bench
