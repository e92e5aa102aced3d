# make install     the virtual environment, every package pinned   (TORCH=cuda for the CUDA build of torch)
# make quickstart  watch a small model learn to use tools, in minutes
# make test        all checks and tests, the long ones excepted, two files at a time
# make soak        kills, fuzzing and load
# make check       format, lint, types, layers, sizes
# make lock        resolve the dependencies anew and rewrite constraints.txt

VENV ?= .venv
TORCH ?= cpu
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(TORCH)

.PHONY: install quickstart check test soak lock format
.DEFAULT_GOAL := install

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/install.sh
	@bash scripts/install.sh "$(VENV)" "$(TORCH)"

quickstart: $(STAMP)
	@$(BIN)/agentrft quickstart

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_sizes.py

test: check
	$(BIN)/pytest -m "not soak and not gpu" -n 2 --dist loadfile

soak: $(STAMP)
	$(BIN)/pytest -m soak

lock:
	@bash scripts/lock.sh

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
