# Targets of the project; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Modules are compiled when they are first imported, and kept: most of what is installed never is.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
RUNTIME := $(VENV)/.runtime
STAMP := $(VENV)/.installed
# Builds what is out of date alone; an installation builds the page, too.
PAGE := $(BIN)/python web/backend/page_backend.py
DECLARED := pyproject.toml triggers/pyproject.toml constraints.txt
# Two cores carry three workers: tests of processes wait more than they compute.
WORKERS ?= 3
XDIST := -n $(WORKERS) --dist loadfile
# The releases of Airflow that `make airflow` tests, and the one of `make test`.
AIRFLOW ?= 3.2.2 3.3.2
NEWEST_AIRFLOW := 3.3.2
REPORT := build/tests.xml
SELECT = $(if $(K),-k '$(K)')

.DEFAULT_GOAL := help
.PHONY: help demo env page test check audit sbom fmt unit integration faults dbt papermill airflow chart docs bench soak clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  K=WORDS      tests whose names match, as pytest -k: make unit K='retry and not crash'"
	@echo "  PYTHON=…     the Python that makes the virtual environment"

demo: $(RUNTIME) ## Run a year of New York departures through four DAGs
	@$(PAGE)
	$(BIN)/pubsubflow demo

env: $(STAMP) ## Make the virtual environment for development
	@$(PAGE)

page: $(STAMP) ## Build the web page, if its sources have changed
	$(PAGE) --again

# The demo needs no more than users do, so its first run does not wait for the test tools.
$(RUNTIME): $(DECLARED)
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(STAMP): $(RUNTIME)
	$(PIP) -e '.[dev]' -e ./triggers
	@touch $@

check: env ## Lint, types, import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: env ## Check constraints against known vulnerabilities, offline
	$(BIN)/python tools/audit.py

sbom: env ## Write a CycloneDX bill of materials into build/
	$(BIN)/python tools/sbom.py build/pubsubflow.cdx.json

fmt: env ## Format, and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: check audit docs ## Check everything: what CI runs
	@mkdir -p build
	@$(BIN)/python -m tools.airflow_env $(NEWEST_AIRFLOW)
	$(BIN)/python -m pytest -m "not soak" -rs $(XDIST) $(SELECT) --junit-xml=$(REPORT) || $(BIN)/python tools/again.py $(REPORT)

unit: env ## Tests without servers
	$(BIN)/python -m pytest -m "not soak" -n $(WORKERS) $(SELECT) tests/unit

integration: env ## Tests with real NATS and Postgres
	$(BIN)/python -m pytest -m "not soak" $(XDIST) $(SELECT) tests/examples tests/integration tests/stateful triggers/tests

faults: env ## Short rounds of kills, stalls and hostile input
	$(BIN)/python -m pytest -m "not soak" $(XDIST) $(SELECT) tests/faults

soak: env ## Long campaigns of the same
	@$(BIN)/python -m tools.airflow_env --systems
	@$(BIN)/python -m tools.airflow_systems
	$(BIN)/python -m pytest -m soak -rs -n $(WORKERS) $(SELECT)

dbt: env ## Test the dbt operator with dbt and DuckDB, in an environment of their own
	$(PYTHON) -m venv $(VENV)/dbt
	$(VENV)/dbt/bin/python -m pip install --quiet 'dbt-core>=1.8,<1.11' 'dbt-duckdb>=1.8,<1.11'
	DBT=$(abspath $(VENV))/dbt/bin/dbt $(BIN)/python -m pytest tests/unit/operators/test_dbt_duckdb.py

papermill: ## Test the notebook operator with papermill and a kernel, in an environment of their own
	$(PYTHON) -m venv $(VENV)/papermill
	$(VENV)/papermill/bin/python -m pip install --quiet -c constraints.txt -e '.[papermill]' pytest
	$(VENV)/papermill/bin/python -m pytest --noconftest -p no:cacheprovider -o addopts= tests/unit/operators/test_papermill.py

airflow: env ## Run Airflow's files beside Airflow itself, all tests with each release
	$(BIN)/python -m tools.airflow_env --all
	@$(BIN)/python -m tools.airflow_env --systems
	@$(BIN)/python -m tools.airflow_systems
	set -e; for release in $(AIRFLOW); do \
	  AIRFLOW_RELEASE=$$release $(BIN)/python -m pytest -m "" -rs $(SELECT) tests/integration/airflow; \
	done

chart: ## Render the Helm chart by Helm's own code, in an environment of its own
	$(PYTHON) -m venv $(VENV)/chart
	$(VENV)/chart/bin/python -m pip install --quiet 'helm-python-sdk>=0.2.2'
	$(VENV)/chart/bin/python -m tools.chart

docs: env ## Build the docs site into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

bench: env ## Measure; writes JSON, prints the goals that are met and missed
	$(BIN)/python -m benchmarks

clean: ## Remove everything that was made
	rm -rf $(VENV) .work build dist
