# The two commands of the README: `make demo` and `make test`. Both set up .venv first when it is missing or outdated.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CORES ?= $(shell nproc 2> /dev/null || getconf _NPROCESSORS_ONLN)
PIP := $(BIN)/python -m pip --disable-pip-version-check

# An environment that does not start, lacks its packages or was made for another folder is made anew.
WHOLE := import importlib.util as i; assert all(map(i.find_spec, ("ltpa", "pytest", "snakemake", "torch")))
ifneq ($(shell $(BIN)/python -c '$(WHOLE)' 2> /dev/null && grep -qsF '$(CURDIR)/$(BIN)' $(BIN)/snakemake && echo whole),whole)
$(shell rm -f $(STAMP))
endif

.PHONY: demo survey test docs setup lint lock
.DELETE_ON_ERROR:

demo: $(STAMP)
	@start=$$(date +%s); $(BIN)/snakemake --cores $(CORES) all_tables; $(BIN)/python -m ltpa summary --since $$start

survey: $(STAMP)
	$(BIN)/snakemake --cores $(CORES) all_tables --configfile config/survey.yaml
	$(BIN)/python -m ltpa show survey_testbed --configfile config/survey.yaml

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	@echo "Installing $$(grep -c == requirements.lock) packages into $(VENV); this takes a minute or two"
	@set -o pipefail; $(PIP) install -r requirements.lock | awk '/^Collecting/ {print "  " $$2; fflush()}'
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

# The documentation as a site, docs/_build/html; a link that leads nowhere is an error.
docs: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r docs/requirements.txt
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env -b html docs docs/_build/html
	$(BIN)/python docs/notebooks.py docs/_build/notebooks
	@echo "docs/_build/html/index.html, docs/_build/notebooks"

lock: $(STAMP)
	@(sed -n '/^#/p' requirements.lock; $(BIN)/pip freeze --exclude-editable --exclude pip --exclude setuptools | sed 's/^\(torch==[0-9.]*\)+.*/\1/') > requirements.lock.new
	mv requirements.lock.new requirements.lock
	$(BIN)/python envs/renew.py
