# Each target builds .venv itself if it is missing, outdated or made by another Python.
#
#   make demo [ONCE=1] [PORT=8000]   the example project against the simulator
#   make test                        the whole suite on SQLite, and on PostgreSQL and MariaDB when
#                                    TEST_POSTGRES_URL and TEST_MARIADB_URL are set; the last
#                                    line says what to install for the tests that were skipped
#   make fuzz                        the property tests, on many thousands of cases: a quarter of an
#                                    hour, on SQLite
#   make lint                        format, lint, security rules, types, and an audit of known holes
#   make messages                    the translation catalogues, from the texts in the sources
#   make screenshots                 docs/screenshots/, some of which README shows; needs Chromium
#   make bench [ARGS="--only 3"]     what the package costs, into benchmarks/RESULTS.md: about a
#                                    quarter of an hour, on PostgreSQL (DATABASE_URL) and Redis
#   make matrix                      every supported Python and Django, from the built wheel
#
# PYTHON=python3.12 picks the interpreter; ARGS="-k callback" is passed on to pytest. The output of
# what runs side by side appears when it has ended; JOBS=1 runs one thing after the other, as
# pytest's --pdb needs. COVERAGE=1 measures coverage even if the run cannot be complete.

PYTHON ?= python3
JOBS ?= 3
# Without caches, Python would compile the suite in each run, and the package in each process.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check install --quiet

# Tests with Chromium run once, on SQLite: they exercise pages, not databases.
BROWSER := $(if $(filter off,$(TEST_BROWSER)),,$(shell command -v chromium))
# Some branches exist for one database only, so a smaller run cannot reach 100 %.
WHOLE := $(and $(TEST_POSTGRES_URL),$(TEST_MARIADB_URL),$(BROWSER),$(if $(ARGS),,all))
STRICT := -W error::DeprecationWarning -W error::PendingDeprecationWarning -W error::ResourceWarning
# Measuring takes time, so only a whole run does it, or one that asks for it: COVERAGE=1.
MEASURED := $(or $(WHOLE),$(filter-out 0,$(COVERAGE)))
SUITE = $(RUN) $(STRICT) $(if $(MEASURED),-m coverage run) -m pytest $(SPREAD) $(ARGS)

.PHONY: demo test fuzz lint messages screenshots bench matrix clean FORCE
.DEFAULT_GOAL := test

demo: $(VENV)/.runtime
	$(RUN) example_project/demo.py $(if $(filter-out 0,$(ONCE)),--once) $(if $(PORT),--port $(PORT))

# A suite spends most of its time waiting: for a pause, a lock, a process. So the suites run side by
# side, each in one process, and its tests one after the other; a suite that runs alone uses several
# processes. The heavy tests run on PostgreSQL and MariaDB; on SQLite they run only without those, and
# in tox.
SUITES := sqlite $(if $(TEST_POSTGRES_URL),postgres) $(if $(TEST_MARIADB_URL),mariadb)
ALONE := $(or $(filter 1,$(JOBS)),$(filter 1,$(words $(SUITES))))
# pytest-xdist: each process has its own modules (tests/conftest.py). The few tests that ARGS selects
# finish before more processes would have started.
PROCESSES := $(if $(ARGS),,$(if $(ALONE),$(filter-out 1,$(JOBS))))
SPREAD := $(if $(PROCESSES),--dist loadgroup --no-loadscope-reorder --tx '$(PROCESSES)*popen//python=$(RUN) $(STRICT)')

test: $(VENV)/.test $(if $(TEST_POSTGRES_URL),$(VENV)/.postgres) $(if $(TEST_MARIADB_URL),$(VENV)/.mariadb)
	@$(if $(MEASURED),$(RUN) -m coverage erase)
	@echo "== Suites: $(SUITES)$(if $(ALONE),, (side by side, each shown when it has ended; JOBS=1 shows them as they run))"
ifeq ($(TEST_POSTGRES_URL),)
	@echo "== PostgreSQL: not run, TEST_POSTGRES_URL is not set (postgres://user:password@127.0.0.1:5432/test)"
endif
ifeq ($(TEST_MARIADB_URL),)
	@echo "== MariaDB: not run, TEST_MARIADB_URL is not set (mysql://user:password@127.0.0.1:3306/test)"
endif
	@$(MAKE) --no-print-directory --keep-going --jobs=$(JOBS) $(if $(ALONE),,--output-sync) $(SUITES:%=.suite-%)
ifneq ($(MEASURED),)
	@echo "== Coverage$(if $(WHOLE),, (not judged: only a run on all three databases with Chromium can be complete))"
	@$(RUN) -m coverage combine --quiet
	@$(RUN) -m coverage report $(if $(WHOLE),,--fail-under=0)
endif

.PHONY: $(SUITES:%=.suite-%)
.suite-sqlite:
	@echo "== SQLite"
	env -u DATABASE_URL PYTHONDEVMODE=1 $(if $(WHOLE),TEST_HEAVY=elsewhere) $(SUITE)

.suite-postgres:
	@echo "== PostgreSQL"
	@DATABASE_URL="$$TEST_POSTGRES_URL" TEST_BROWSER=off $(SUITE)

.suite-mariadb:
	@echo "== MariaDB"
	@DATABASE_URL="$$TEST_MARIADB_URL" TEST_BROWSER=off $(SUITE)

fuzz: $(VENV)/.test
	env -u DATABASE_URL TEST_HYPOTHESIS=nightly $(RUN) $(STRICT) -m pytest $(ARGS) $(wildcard tests/scenarios/test_hostile_*.py)

lint: $(VENV)/.lint
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m compileall -q django_tiktok_business tests example_project benchmarks
	@# Without a network there is no answer: the second command says so.
	-@$(RUN) -m pip_audit --format json --progress-spinner off --timeout 5 2>/dev/null > $(VENV)/audit.json
	$(RUN) -m tests.support.audit < $(VENV)/audit.json

# Needs GNU gettext. New texts are left untranslated, and changed ones are marked as fuzzy.
messages: $(VENV)/.runtime
	cd django_tiktok_business && ../$(RUN) -m django makemessages --all --no-location --no-wrap --no-obsolete
	for po in django_tiktok_business/locale/*/LC_MESSAGES/django.po; do msgfmt --check -o "$${po%.po}.mo" "$$po" || exit 1; done

screenshots: $(VENV)/.test
	SCREENSHOTS=docs/screenshots $(RUN) -m pytest tests/project/test_screenshots.py

bench: $(VENV)/.bench
	$(RUN) -m benchmarks $(ARGS)

matrix: $(VENV)/.tox
	$(RUN) -m tox run-parallel --parallel $(JOBS) --parallel-no-spinner --result-json .tox/result.json $(if $(ENVS),-e $(ENVS))

clean:
	rm -rf $(VENV) .tox .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* build dist *.egg-info

# Checked each time, and written only when the environment is new, so that the stamps below follow
# it: an environment is useless once its Python was upgraded or the checkout was moved.
IDENTITY := import sys; print(sys.version, sys.base_prefix, *sys.argv[1:])

$(VENV)/.interpreter: FORCE
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or older than Python 3.11; try: make PYTHON=python3.12"; exit 1; }
	@wanted="$$($(PYTHON) -c '$(IDENTITY)' '$(CURDIR)')"; \
	if ! $(RUN) -c pass 2>/dev/null || [ "$$(cat $@ 2>/dev/null)" != "$$wanted" ]; then \
	  echo "Making $(VENV) with $$($(PYTHON) --version)"; \
	  rm -rf $(VENV); \
	  $(PYTHON) -m venv $(VENV) || { echo "On Debian: apt install python3-venv"; exit 1; }; \
	  echo "$$wanted" > $@; \
	fi

$(VENV)/.runtime: $(VENV)/.interpreter setup.cfg pyproject.toml
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime tests/requirements.txt
	$(PIP) -r tests/requirements.txt
	@touch $@

$(VENV)/.lint: $(VENV)/.test tests/requirements-lint.txt
	$(PIP) -r tests/requirements-lint.txt
	@touch $@

$(VENV)/.postgres: $(VENV)/.test tests/requirements-postgres.txt
	$(PIP) -r tests/requirements-postgres.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.postgres tests/requirements-bench.txt
	$(PIP) -r tests/requirements-bench.txt
	@touch $@

$(VENV)/.mariadb: $(VENV)/.test tests/requirements-mariadb.txt
	@$(PIP) -r tests/requirements-mariadb.txt || \
	  { echo "mysqlclient is compiled here; on Debian: apt install gcc pkg-config libmariadb-dev python3-dev"; exit 1; }
	@touch $@

$(VENV)/.tox: $(VENV)/.interpreter tests/requirements-tox.txt
	$(PIP) -r tests/requirements-tox.txt
	@touch $@

FORCE:
