# Every task of the project. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install dev demo run test services lint sim census format bench clean

help: ## list the tasks
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# A bare Debian has Python without venv; root can put it in.
$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(MAKE) --no-print-directory venv-by-apt

.PHONY: venv-by-apt
venv-by-apt:
	rm -rf $(VENV)
	apt-get update -qq && apt-get install -qq -y python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $(VENV)/.installed $@

install: $(VENV)/.installed ## install into .venv

dev: $(VENV)/.installed-dev ## install with what tests and linters need

demo: install ## show the main job end to end on this machine, on real data
	$(BIN)/mishards demo

run: install ## a standalone server on 127.0.0.1:19530, data in ./mishards-data
	$(BIN)/mishards serve

lint: dev ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: dev lint services ## everything: lint, unit tests, real processes
	$(BIN)/pytest

services: ## MariaDB and PostgreSQL for the tests, from Debian packages where root can install them
	@if ! { PATH="$$PATH:/usr/sbin" command -v mariadbd && ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends mariadb-server postgresql; \
	  else echo "MariaDB or PostgreSQL is missing: what needs it is not tested"; fi; \
	fi

sim: dev ## simulated clusters with faults: SEEDS=1000 START=0 JOBS=2, or SEED=42 to replay one with its history
	$(BIN)/python -m mishards.testing.sim $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000) --start $(or $(START),0) \
	  --jobs $(or $(JOBS),2))

census: dev services ## real processes under faults, every answer checked: MINUTES=10 METADATA=sqlite|mariadb|postgresql SEED=7
	$(BIN)/python -m tools.census --minutes $(or $(MINUTES),10) --metadata $(or $(METADATA),sqlite) --seed $(or $(SEED),7)

format: dev ## rewrite the code in our style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench ## measure beside Milvus 2.3.5, 25 minutes; FLAGS=--quick: 4
	$(BIN)/python -m bench $(FLAGS)

clean: ## remove what the tasks made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
