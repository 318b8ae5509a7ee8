# make demo | test | test-cluster | lint | bench | guests | clean.  PYTHON and PYTEST_ARGS may be given.
PYTHON ?= python3
PYTEST_ARGS ?=
MAKEFLAGS += --no-print-directory
PIP = -m pip --disable-pip-version-check --quiet
SOURCES := $(shell find dbt frontends backends machine bench/guests bin -type f -not -path '*/__pycache__/*' 2>/dev/null)

.PHONY: help demo install test test-cluster lint types format bench guests launcher clean

help:
	@echo 'make demo     install into .venv and run the guests that come with Dragoman'
	@echo 'make test     run the tests (in .venv-dev)'
	@echo 'make test-cluster   disks on a one-node Ceph cluster and a glusterd, which it starts: tests/cluster'
	@echo 'make lint     ruff and mypy'
	@echo 'make bench    speed against qemu-aarch64-static, as a table; JSON and a plot in build/bench'
	@echo 'make guests   build the guests anew (needs gcc-aarch64-linux-gnu)'
	@echo 'make launcher build bin/dragoman anew, from dbt/engine/launcher.py'
	@echo 'make clean    remove what the others made'

demo: .venv/.stamp
	@.venv/bin/dragoman demo

install: .venv/.stamp

# A plain install, as users have it: an editable one adds 20 ms to every start.
.venv/.stamp: setup.cfg setup.py pyproject.toml README.md LICENSE bin/make-venv $(SOURCES)
	@bin/make-venv $(PYTHON) .venv
	@rm -rf build/lib build/bdist.*
	@echo 'installing Dragoman into .venv'
	@.venv/bin/python $(PIP) install .
	@touch $@

# An editable install with what tests and checks need.
.venv-dev/.stamp: setup.cfg setup.py pyproject.toml bin/make-venv bin/dragoman
	@bin/make-venv $(PYTHON) .venv-dev
	@echo 'installing Dragoman and its tools into .venv-dev'
	@.venv-dev/bin/python $(PIP) install --editable '.[dev]'
	@touch $@

test: .venv-dev/.stamp
	@.venv-dev/bin/pytest $(PYTEST_ARGS)

test-cluster: .venv-dev/.stamp
	@DRAGOMAN_CLUSTER=1 .venv-dev/bin/pytest $(PYTEST_ARGS) tests/cluster

lint: .venv-dev/.stamp
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	@$(MAKE) types

types: .venv-dev/.stamp build/tree/.stamp
	cd build/tree && ../../.venv-dev/bin/mypy --config-file ../../pyproject.toml -p dbt -p bench -p tests

format: .venv-dev/.stamp
	.venv-dev/bin/ruff check --fix-only .
	.venv-dev/bin/ruff format .

# mypy does not know setup.cfg's package_dir: it sees the packages where an install has them, through links.
build/tree/.stamp: Makefile dbt
	@rm -rf build/tree && mkdir -p build/tree/dbt
	@for entry in $(filter-out %/__pycache__,$(wildcard dbt/*)); do ln -s ../../../$$entry build/tree/dbt/; done
	@ln -s ../../../frontends ../../../backends ../../../machine build/tree/dbt/ && ln -s ../../../bench/guests build/tree/dbt/guests
	@ln -s ../../bench ../../tests build/tree/
	@touch $@

# The install that users have is what is measured, with a cache of its own; matplotlib draws the plots.
.venv/.bench: .venv/.stamp
	@if .venv/bin/python $(PIP) install '.[bench]'; then touch $@; else echo 'there will be no plots'; fi

bench: .venv/.bench
	@.venv/bin/python -m bench --dragoman .venv/bin/dragoman --output build/bench

guests:
	bench/guests/build.sh

# The command itself, an executable that our own compiler makes; it is kept in the repository.
launcher: .venv-dev/.stamp
	.venv-dev/bin/python -m dbt.backends.llvm.executable bin/dragoman

clean:
	rm -rf .venv .venv-dev build dist dragoman.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './.venv*' -exec rm -rf {} +
