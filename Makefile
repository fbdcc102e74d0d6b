# Everything a newcomer needs: `make run` and `make test` set up .venv by themselves.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ARGS ?=
PYTHON ?=

bin := .venv/bin
ready := .venv/.ready

# The brokers of the tests (see tests/conftest.py). Apache Kafka needs Java 17 and Maven; without them the tests
# say so and run on the embedded one.
export SIMUSAGE_TEST_KAFKA ?= embedded,apache

# A `python3.12` on PATH may be a shim of a version that is not installed, and a distribution's Python may lack
# venv: each candidate is tried, not only found.
define FIND_PYTHON
works() { "$$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' </dev/null >/dev/null 2>&1; }
candidates() {
  printf '%s\n' $(PYTHON)
  type -aP python3.12 python3.11 python3 python || true
  ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[12].*/bin/python 2>/dev/null || true
}
found=
while read -r candidate; do
  if [ -n "$$candidate" ] && works "$$candidate"; then found=$$candidate; break; fi
done < <(candidates)
if [ -z "$$found" ]; then
  echo "No working Python 3.11 or 3.12 with venv found. Install one (Debian: python3.11-venv), or name it: make PYTHON=/path/to/python3.12" >&2
  exit 1
fi
endef

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

.PHONY: run
run: $(ready) ## Run the whole product here; options pass through: make run ARGS="--for 90 --data DIR"
	@exec $(bin)/python -m simusage run --demo $(ARGS)

.PHONY: test
test: $(ready) ## Run the tests; options pass through: make test ARGS="-k ledger"
	@case $$SIMUSAGE_TEST_KAFKA in *apache*) $(bin)/python -m tests.apache || true ;; esac
	@exec $(bin)/python -m pytest $(ARGS)

.PHONY: chaos
chaos: $(ready) ## Run the chaos suite alone; the long form: make chaos ARGS=--long
	@case $$SIMUSAGE_TEST_KAFKA in *apache*) $(bin)/python -m tests.apache || true ;; esac
	@exec $(bin)/python -m pytest tests/chaos $(ARGS)

.PHONY: fuzz
fuzz: $(ready) ## Fuzz the query endpoint over its OpenAPI; again: make fuzz ARGS="--seed 7"
	@exec $(bin)/python -m pytest tests/integration/test_api_fuzz.py --long $(ARGS)

.PHONY: bench
bench: $(ready) ## Measure the worker, write docs/benchmarks.*; make bench ARGS="--quick ingest_fat"
	@exec $(bin)/python -m tests.benchmarks $(ARGS)

.PHONY: bench-peers
bench-peers: $(ready) ## Measure Kafka Streams, Quix Streams and naive Faust on the same load (needs Java 17)
	@exec $(bin)/python -m tests.benchmarks.peers $(ARGS)

.PHONY: check
check: $(ready) ## Check format, lint, types and that the generated files are up to date
	@$(bin)/ruff format --check .
	@$(bin)/ruff check .
	@$(bin)/mypy -p streams -p connectors -p tests -m simusage
	@$(bin)/python -m connectors.generated --check

.PHONY: format
format: $(ready) ## Format the code and mend what lint can mend
	@$(bin)/ruff format .
	@$(bin)/ruff check --fix .

.PHONY: generate
generate: $(ready) ## Write the files under docs/ that are generated from the code
	@$(bin)/python -m connectors.generated

.PHONY: lock
lock: ## Resolve the dependencies anew into requirements.lock (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-index-url \
	  --no-emit-find-links --custom-compile-command "make lock" --upgrade pyproject.toml -o requirements.lock

$(ready): pyproject.toml requirements.lock
	@if ! $(bin)/python -c 'import pip' >/dev/null 2>&1; then \
	  eval "$$FIND_PYTHON"; \
	  echo "setting up .venv with $$found" >&2; \
	  "$$found" -m venv --clear .venv; \
	fi
	@$(bin)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

export FIND_PYTHON
