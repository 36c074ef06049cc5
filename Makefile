# Everything a developer or a first visitor does, in one command each. `make` lists them.
# Needs Python 3.11 or newer. Java 17 or newer is used where there is one, and installed into .venv where not.

PYTHON ?= python3
TESTS_AT_ONCE ?= 2
KILLS ?= cluster# or "cluster and not long", for fewer of them
BIN := .venv/bin
PACK := dist/ap-spark-environment.tar.gz
PYTEST = JAVA_HOME="$$($(BIN)/python -m ap_spark.java)" PATH="$(CURDIR)/$(BIN):$$PATH" \
	$(BIN)/python -m pytest --numprocesses $(TESTS_AT_ONCE) --dist worksteal
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-programs test-cluster test-kills test-compose test-airflow check format docs docs-settings site bench pack lock audit clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: .venv/.run ## cluster the handwritten digits and say what came out
	$(BIN)/ap-spark cluster data/digits.csv.gz --feature-columns 0-63 --preference -25000 --output out/digits --overwrite
	@echo "The exemplars as pictures: docs/images/digits.png. More or fewer of them, near neighbours alone: docs/choosing.md"

test: .venv/.dev ## run the tests
	$(PYTEST)

test-long: .venv/.dev ## run more cases of some of these tests
	$(PYTEST) -m "long and not cluster"

test-programs: .venv/.dev ## run the tests that start programs as a user would: what README and the tutorial say, Spark Connect
	$(PYTEST) -m programs

test-cluster: test-kills test-compose ## run the two below

test-kills: .venv/.dev ## run the tests that kill drivers and executors of this machine
	$(PYTEST) -m "$(KILLS)"

test-compose: .venv/.dev ## run the tests on a cluster in containers, and what befalls it there (Docker)
	$(BIN)/python -m pytest -m compose --durations 0

test-airflow: .venv-airflow/.done ## read the example DAG with a real Airflow
	AIRFLOW_HOME="$(CURDIR)/.venv-airflow/home" .venv-airflow/bin/python -m pytest -c /dev/null --rootdir examples examples/test_airflow_dag.py

check: .venv/.dev ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.dev ## format, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: docs-settings ## make the settings table and the pictures
	$(BIN)/python -m docs.pictures

docs-settings: .venv/.dev ## make the settings table
	$(BIN)/python -c 'from ap_spark.settings import markdown; print(markdown(), end="")' > docs/settings.md

# All pages anew each time: one that has not changed would keep its warnings to itself.
site: .venv/.site ## build the documentation site into out/site, and check its links
	rm -rf out/site
	$(BIN)/python -m sphinx --quiet --fail-on-warning --fresh-env --conf-dir docs --doctree-dir out/site-cache . out/site
	@echo "The front page: out/site/index.html"

bench: .venv/.dev ## edges per second of both engines and the bare kernel
	JAVA_HOME="$$($(BIN)/python -m ap_spark.java)" $(BIN)/python -m benchmarks.run

pack: $(PACK) ## build the archive for spark-submit --archives

lock: .venv/.dev ## choose new versions for constraints.txt and for test-airflow
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --no-emit-package ap-spark --no-header --no-annotate --upgrade \
		--python-version 3.11 --all-extras pyproject.toml --output-file constraints.txt
	printf '%s\n' apache-airflow apache-airflow-providers-apache-spark pytest | \
		$(BIN)/uv pip compile --quiet --universal --no-header --no-annotate --upgrade \
		--python-version 3.11 - --output-file examples/airflow-requirements.txt

# Strict: a package that could not be looked up is a failure, and not passed over.
audit: .venv/.dev ## look for known vulnerabilities of the locked versions
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv tool run pip-audit --strict --no-deps --disable-pip --requirement constraints.txt
	$(BIN)/uv tool run pip-audit --strict --no-deps --disable-pip --requirement examples/airflow-requirements.txt

clean: ## delete what the other commands made
	rm -rf .venv .venv-airflow out dist .mypy_cache .ruff_cache .pytest_cache

# An environment without what is for developers, and without Spark, which the workers have: 270 MB, with it 730.
# venv-pack2 is the kept fork of venv-pack, PySpark's documented way; unlike conda-pack it takes the same locked wheels as
# .venv. The archive links to PYTHON, which the workers need in the same place: PYTHON=/usr/bin/python3 is a safe choice.
$(PACK): pyproject.toml constraints.txt $(wildcard ap_spark/*.py ap_spark/*/*.py conf/*)
	$(PYTHON) -m venv --clear dist/environment
	dist/environment/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 \
		--constraint constraints.txt '.[approximate,fast]' venv-pack2
	dist/environment/bin/venv-pack --quiet --force --prefix dist/environment --output $@ \
		--exclude 'lib/python*/site-packages/pyspark/*'
	rm -r dist/environment

# Environments: .run is enough to run the program, .dev to work on it, .site to build its site. Airflow has its own: it pins what we
# need otherwise.

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.run: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable .
	$(BIN)/python -m ap_spark.java --system >/dev/null || $(INSTALL) --editable '.[java]'
	@touch $@

.venv/.dev: .venv/.run
	$(INSTALL) --editable '.[dev]'
	@touch $@

.venv/.site: .venv/.run
	$(INSTALL) --editable '.[site]'
	@touch $@

.venv-airflow/.done: examples/airflow-requirements.txt
	$(PYTHON) -m venv --clear .venv-airflow
	.venv-airflow/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
