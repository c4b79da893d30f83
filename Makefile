# What is done often. Needs Python 3.11 or later with venv, and a network the first time; nothing else.
#
#   make run DEMO="--port 0 --tls-port 0"       options of `tlsgate demo`
#   make test PYTEST="-x -k pipelining"         options of pytest
#   make PYTHON=python3.13 ...                  the interpreter of a new environment

VENV := .venv
BIN := $(VENV)/bin
PURE_TESTS := tests/smtp tests/policy tests/session
DEMO :=
PYTEST := -q

# The first one that is new enough.
NEW_ENOUGH := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

# An environment knows where it is: one that was copied or moved, or lost its interpreter, is made anew.
USABLE := { [ ! -e $(VENV)/.home ] || [ "$$(cat $(VENV)/.home)" = "$(CURDIR)" ]; } \
	&& $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null && $(BIN)/python -m pip --version >/dev/null 2>&1
STALE := $(shell $(USABLE) || echo FORCE)

.DEFAULT_GOAL := help
.PHONY: help run test lint pure rest benchmark clean FORCE

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.ready ## start the gate before a mailbox on this machine, and say how to send a mail through
	@$(BIN)/tlsgate demo $(DEMO)

test: lint pure rest ## everything: style, types, and all tests; what needs Debian's mail servers is skipped without them

lint: $(VENV)/.ready-test ## style and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The language, the law and the decisions have no line and no branch that their own tests do not reach.
pure: $(VENV)/.ready-test
	$(BIN)/coverage run --branch --source=tlsgate.smtp,tlsgate.policy,tlsgate.session -m pytest $(PYTEST) $(PURE_TESTS)
	$(BIN)/coverage report --skip-covered --fail-under=100

rest: $(VENV)/.ready-test
	$(BIN)/python -m pytest $(PYTEST) $(PURE_TESTS:%=--ignore=%)

benchmark: $(VENV)/.ready-test ## compare with nginx, stunnel and others, side by side
	$(BIN)/python benchmarks/compare.py

clean: ## remove all that was made here: environment, demo mail, caches
	rm -rf $(VENV) .run .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache _trial_temp* build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready: pyproject.toml $(STALE)
	@$(call install,.)
	@touch $@

$(VENV)/.ready-test: pyproject.toml $(STALE)
	@$(call install,.[test])
	@touch $(VENV)/.ready $@

define install
$(USABLE) || { \
	[ -n "$(PYTHON)" ] || { echo "Python 3.11 or later, with venv, is needed (Debian: apt install python3-venv)" >&2; exit 1; }; \
	echo "making an environment in $(VENV)"; \
	$(PYTHON) -m venv --clear $(VENV); \
} && echo "$(CURDIR)" >$(VENV)/.home && $(BIN)/python -m pip install --quiet --editable '$(1)'
endef
