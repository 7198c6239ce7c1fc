# The house's jobs. Each target sets up .venv by itself (see .ci/venv); `make` alone lists them.
#
#   PYTHON=python3.12   the interpreter for .venv         UV=   do without uv
#   TESTARGS='-k router --servers containers'   for `make test`
#   BENCHARGS=...       for `make bench`
#   CHAOSARGS='--seconds 600 --seed 7'   for `make chaos`
#   COMPILED=1          demo, test, bench, chaos and build with the hot paths compiled (hatch_build.py)
#   MUTANTARGS='--list'   for `make mutants`
#   HOSTILEARGS='--tenants 500 --seconds 60'   for `make hostile`

BIN := .venv/bin
SETUP := bash .ci/venv
override COMPILED := $(filter-out 0,$(COMPILED))
RUN := $(if $(COMPILED),bash .ci/compiled)
TEST_IMAGE ?= tenantry-test/nats:local

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench chaos hostile mutants contracts build test-image clean
.NOTPARALLEL:

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with the project and the development tools
	@$(SETUP) dev

demo: ## see the whole mesh at work on this machine, with a real NATS server
	@$(SETUP) local
	@$(RUN) $(BIN)/tenantry demo

test: ## run all tests with coverage (TESTARGS goes to pytest)
	@COMPILED=$(COMPILED) bash .ci/test $(TESTARGS)

check: ## lint, formatting, types, import layers, whitespace, known vulnerabilities
	@bash .ci/check

bench: ## measure side by side with bare nats-py and others (BENCHARGS)
	@$(SETUP) dev
	@$(RUN) $(BIN)/python -m benchmarks $(BENCHARGS)

chaos: ## random faults on a real mesh, judged by an oracle (CHAOSARGS)
	@$(SETUP) dev
	@$(RUN) $(BIN)/python -m chaos $(CHAOSARGS)

mutants: ## wrong changes to the isolation code, each of which a test must notice (MUTANTARGS)
	@$(SETUP) dev
	@$(BIN)/python -m mutants $(MUTANTARGS)

hostile: ## hundreds of tenants with a secret each, and attackers among them (HOSTILEARGS)
	@$(SETUP) dev
	@$(BIN)/python -m tests.isolation.world $(HOSTILEARGS)

contracts: ## write subjects.md and schemas/ anew from the code
	@$(SETUP) dev
	@$(BIN)/tenantry subjects --write
	@$(BIN)/tenantry schemas --write

build: ## build the wheel and the source distribution into dist/; COMPILED=1: this platform's wheel too
	@$(SETUP) dev
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist
	@$(if $(COMPILED),TENANTRY_COMPILED=1 $(BIN)/python -m build --wheel --outdir dist)

test-image: ## make a container image of the wheel's NATS server, for --servers containers
	@$(SETUP) local
	@tar -C "$$(dirname "$$(readlink -f $(BIN)/nats-server)")" -cf - nats-server \
	  | docker import --change 'ENTRYPOINT ["/nats-server"]' - $(TEST_IMAGE) >/dev/null
	@echo "made $(TEST_IMAGE); how to use it: CONTRIBUTING.md"

clean: ## remove what tests and builds leave behind (not .venv)
	@rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@rm -f .coverage .coverage.* coverage.xml
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
