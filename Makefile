# Two commands: `make demo` shows the main job, `make test` checks everything.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check bench soak clean env

env: $(STAMP)

$(STAMP): pyproject.toml triggers/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' -e ./triggers
	@touch $(STAMP)

demo: env
	$(BIN)/pubsubflow demo

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -m "not soak" -n 3 --dist loadfile

soak: env
	$(BIN)/python -m pytest -m soak -n 3 --dist loadgroup

bench: env
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .work build dist
