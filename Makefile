# psubd's commands. A fresh machine needs Python 3.11 or newer (with venv) and make only; everything else is made below .venv.
#
#   make run         the daemon with a demonstration: prints two curl lines that work
#   make kafka       one Kafka broker to try psubd on, until Ctrl-C (needs Java 17 and Maven): prints its URL and the command
#   make zookeeper   one ZooKeeper server, likewise
#   make cluster     ZooKeeper, Kafka and three psubd nodes on loopback, until Ctrl-C: prints the commands to try them
#   make test        all tests, the failure stories short
#   make test-long   all tests, the failure stories at full length
#   make check       style, types, the rooms' borders, the wheel, the man pages, the unit tests under trial
#   make bench       every figure of docs/benchmarks.md beside its floor, here (needs wrk; Java and Maven for Kafka): 20 minutes.
#                    A quick look: make bench ROUNDS=1 ROWS=publish-sqlite-128. Beside another proxy: PEERS="kafka-pixy=http://127.0.0.1:19092"
#   make bench-profile  where the time of a publish and of a subscribe goes, by function
#   make docs        man/psubd.toml.5 and docs/configuration.md, from etc/psubd.toml
#   make lock        the versions in requirements*.lock, anew

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
STATE ?= psubd-state
ROUNDS ?= 5
SECONDS_EACH ?= 1
ROWS ?=
PEERS ?=
KAFKA ?=

.DELETE_ON_ERROR:
.PHONY: run kafka zookeeper cluster test test-long bench bench-profile check check-wheel check-man check-trial docs lock clean

$(VENV)/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "psubd needs Python 3.11 or newer, and $(PYTHON) is: $$($(PYTHON) --version 2>&1). Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
	  rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@touch $@

$(VENV)/run.stamp: $(VENV)/made.stamp requirements.lock pyproject.toml
	@echo "Installing what psubd needs into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements-dev.lock
	@echo "Installing what the tests and checks need into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

run: $(VENV)/run.stamp
	@$(BIN)/twistd --nodaemon --pidfile= psubd --state $(STATE) --demo

kafka: $(VENV)/run.stamp
	@$(BIN)/python -m psubd.testing.kafka

zookeeper: $(VENV)/run.stamp
	@$(BIN)/python -m psubd.testing.zookeeper

cluster: $(VENV)/run.stamp
	@$(BIN)/python -m psubd.testing.cluster

# three at a time, a file's tests in one process, since they share servers: most of them wait more than they work
test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile

test-long: $(VENV)/dev.stamp
	PSUBD_LONG=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m bench --rounds $(ROUNDS) --seconds $(SECONDS_EACH) --rows '$(ROWS)' $(addprefix --peer ,$(PEERS)) $(addprefix --kafka ,$(KAFKA))

bench-profile: $(VENV)/dev.stamp
	@$(BIN)/python -m bench.profiles --rows '$(ROWS)'

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory check-man check-wheel check-trial

# groff says on stderr what it does not understand, and ends with 0 all the same
check-man:
	@for page in man/*.[58]; do \
	  said=$$(LC_ALL=C.UTF-8 groff -man -Tutf8 -ww -z $$page 2>&1) && test -z "$$said" || { echo "$$page: $$said" >&2; exit 1; }; echo "$$page: no warning"; done

check-wheel: $(VENV)/dev.stamp
	rm -rf build/check
	$(BIN)/python -m build --quiet --no-isolation --outdir build/check .
	$(BIN)/check-wheel-contents build/check/*.whl
	$(BIN)/twine check --strict build/check/*

check-trial: $(VENV)/dev.stamp
	$(BIN)/python -m twisted.trial --reporter=text --temp-directory=build/trial tests

docs:
	$(PYTHON) docs/derive.py

lock: $(VENV)/dev.stamp
	@$(PIP) install uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --extra dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) build dist
