# Everything happens inside this directory: programs in .venv and .tox, the demo in .demo, a node's data in
# swarm-data, and what pip and virtualenv like to keep in the home directory in .venv too.
# Needs git, make and Python 3.11 or newer with venv; no root.

# The environments `make test` runs; PYTHON picks the interpreter: make test PYTHON=python3.13
ENVS ?= py,coverage,lint,mypy,docs,news
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$each -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)

PIP = .venv/bin/python -m pip --disable-pip-version-check --retries 8
SOURCES = setup.py pyproject.toml README.md $(shell find swarm twisted -name '*.py' -o -name '*.[ch]')

export PIP_CACHE_DIR = $(CURDIR)/.venv/cache/pip
export VIRTUALENV_OVERRIDE_APP_DATA = $(CURDIR)/.venv/cache/virtualenv

.PHONY: help demo run test soak pulls chaos bench fuzz mutants compiled clean

help:
	@echo 'make demo [FILE=…]   four nodes on this machine show what swarm does'
	@echo 'make run             one node to use, at http://127.0.0.1:7040'
	@echo 'make test            the whole test suite'
	@echo 'make soak HOURS=8    simulated swarms, seed after seed, on all cores'
	@echo 'make pulls MINUTES=20 pull after pull with real nodes, and whether any stands still'
	@echo 'make chaos ROUNDS=20 only its real faults on real processes, so many rounds of the random ones'
	@echo 'make bench           how fast, beside nginx, aria2, libtorrent: ten minutes; with FULL=1 the whole of it'
	@echo 'make fuzz SECONDS=60 what parsers do with bytes nobody thought of; needs atheris'
	@echo 'make mutants         deliberate faults, and which test notices each; writes docs/mutants.rst'
	@echo 'make compiled        what an installation compiles, for the checkout: hashing side by side, receiving in one call'
	@echo 'make clean           remove what these made (not swarm-data)'

demo: .venv/installed
	.venv/bin/swarm demo $${FILE:+"$$FILE"}

run: .venv/installed
	exec .venv/bin/twistd -n --pidfile= swarm $(ARGS)

test: .venv/tox
	.venv/bin/python -m tox run -e "$(ENVS)"

# Goes on where the last night ended; remove the state file to begin anew.
soak: .venv/installed
	.venv/bin/python -m swarm.testing.simulation --hours $(or $(HOURS),8) \
		--workers $(or $(WORKERS),$(shell nproc)) --state $(or $(STATE),.soak.json)

pulls: .venv/installed
	.venv/bin/python -m swarm.testing.pulls --minutes $(or $(MINUTES),20)

chaos: .venv/tox
	SWARM_CHAOS_ROUNDS=$(or $(ROUNDS),20) .venv/bin/python -m tox run -e py -- \
		-q -o timeout=0 $(wildcard tests/integration/test_chaos_*.py)

bench: .venv/bench
	.venv/bin/python -m bench $(if $(FULL),--full,--quick) $(NAMES)

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo 'swarm needs Python 3.11 or newer with the venv module' >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/tox: | .venv/bin/python
	$(PIP) install --quiet 'tox>=4.30'
	@touch $@

# A plain install, not an editable one, which would hide the twistd plugin; build/ is removed
# because setuptools would install modules that were deleted since.
.venv/installed: $(SOURCES) | .venv/bin/python
	rm -rf build
	$(PIP) install --quiet --upgrade --upgrade-strategy only-if-needed .
	rm -rf build
	@touch $@

# Where there is no libtorrent for this Python, the rest is measured all the same, and the results say so.
.venv/bench: .venv/installed
	$(PIP) install --quiet '.[bench]' || echo 'left out: libtorrent, matplotlib' >&2
	rm -rf build
	@touch $@

# Goes on from what took new paths before; what breaks a promise is kept in tests/fuzz/corpus, for the suite.
fuzz: .venv/fuzz
	.venv/bin/python -m swarm.testing.fuzzing --seconds $(or $(SECONDS),60) --known .venv/cache/fuzz $(NAMES)

# Where there is no atheris for this Python, the command says so and fails.
.venv/fuzz: .venv/installed
	$(PIP) install --quiet '.[fuzz]' || echo 'left out: atheris' >&2
	rm -rf build
	@touch $@

mutants: .venv/tox
	.venv/bin/python -m tox run -e mutants $(if $(SEEDS),-- --seeds $(SEEDS))

# `pip install` does the same, where there is a compiler.
compiled: swarm/hashing/_lanes.so swarm/peering/_records.so

swarm/hashing/_lanes.so: swarm/hashing/lanes.c swarm/hashing/rounds.h
swarm/peering/_records.so: swarm/peering/records.c
swarm/hashing/_lanes.so swarm/peering/_records.so:
	$(CC) -O3 -fPIC -shared -o $@ $<

clean:
	rm -rf .venv .tox .demo .soak.json build dist swarm.egg-info docs/_build htmlcov .coverage .coverage.* \
		.mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis bench/runs
	rm -f swarm/hashing/_lanes*.so swarm/peering/_records*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
