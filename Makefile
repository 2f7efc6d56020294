# `make` alone lists what there is. Nothing here needs root or Docker, except `up` and `down`.

PYTHON ?=
VENV := .venv
PY := $(VENV)/bin/python
SERVER_PACKAGES := libs/common services/ingest services/deliver services/janitor
PACKAGES := $(SERVER_PACKAGES) cli
CODE := libs services cli tests deploy bench
PIP := $(PY) -m pip --disable-pip-version-check --quiet --quiet

.DEFAULT_GOAL := help
.PHONY: help run test faults mutants netfs check lint format types unit messages screenshots bench bench-docs up down requirements install clean

help: ## What there is
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

run: $(VENV)/.run ## Start the whole stack here (Ctrl-C stops it; WORKERS=2: two processes each)
	@exec env $(if $(WORKERS),ONCEDROP_WORKERS=$(WORKERS)) $(PY) -m oncedrop_common.embedded

test: $(VENV)/.dev ## All tests (ARGS="-k claim" chooses; SEED= as with faults)
	@FAULTS_SEED=$(SEED) exec $(PY) -m pytest $(ARGS)

# LONG=1 looks longer, and lets everything loose for MINUTES; SEED= repeats a run that printed it.
faults: $(VENV)/.dev ## Kill, cut and fill everything; writes docs/faults.md (LONG=1, MINUTES=20, SEED=, ARGS=)
	FAULTS_LONG=$(LONG) FAULTS_MINUTES=$(MINUTES) FAULTS_SEED=$(SEED) $(PY) -m pytest tests/faults $(ARGS)
	PYTHONPATH=tests $(PY) -m support.crash_cases
	$(if $(LONG),$(if $(wildcard ../shared/netfs/with-nfs.sh),$(MAKE) netfs NFS=3 && $(MAKE) netfs NFS=4.2))

mutants: $(VENV)/.dev ## Put faults into a copy of the product; its tests must find each (ONLY=)
	@PYTHONPATH=tests $(PY) -m support.mutants "$(ONLY)"

# NFS needs a guest with the kernel's own server and client; it is slow.
netfs: $(VENV)/.dev ## Two hosts with one GlusterFS volume, or NFS=3, NFS=4.2 (needs root and ../shared/netfs)
	FAULTS_SEED=$(SEED) $(if $(NFS),../shared/netfs/with-nfs.sh $(NFS),../shared/netfs/with-gluster.sh) \
		$(PY) -m pytest -p no:cacheprovider tests/netfs $(ARGS)

check: lint types unit ## Quick checks without Docker: lint, types, layers, unit tests

lint: $(VENV)/.dev ## ruff, the layers (import-linter), and that pins and packages agree
	$(PY) -m ruff check $(CODE)
	$(PY) -m ruff format --check $(CODE)
	$(VENV)/bin/lint-imports --no-cache
	$(PY) -m pip --disable-pip-version-check check

types: $(VENV)/.dev ## mypy strict, tests included
	MYPYPATH=$(subst $() ,:,$(PACKAGES:%=%/src) tests) $(PY) -m mypy --explicit-package-bases $(CODE)

unit: $(VENV)/.dev ## The unit tests only
	$(PY) -m pytest tests/unit $(ARGS)

format: $(VENV)/.dev ## Format the code and sort its imports
	$(PY) -m ruff check --select I --fix $(CODE)
	$(PY) -m ruff format $(CODE)

LOCALE := libs/common/src/oncedrop_common/locale
messages: $(VENV)/.dev ## Bring the catalogs of the pages' languages up to date with the templates
	$(VENV)/bin/pybabel --quiet extract -F pyproject.toml --no-location --omit-header -o $(VENV)/messages.pot libs services
	$(VENV)/bin/pybabel --quiet update -D oncedrop -d $(LOCALE) -i $(VENV)/messages.pot \
		--omit-header --no-fuzzy-matching --ignore-obsolete --width 100

screenshots: $(VENV)/.dev ## Take docs/screenshots again (needs chromium)
	SCREENSHOTS_DIR=docs/screenshots $(PY) -m pytest -q tests/browser/test_screenshots.py

bench: $(VENV)/.bench ## Compare with nginx on this machine (ARGS="--quick download" chooses)
	@exec $(PY) -m bench.run $(ARGS)

bench-docs: $(VENV)/.bench ## Put the last run's tables and plots into docs/
	@exec $(PY) -m bench.document

up: .env ## Build the images and start the stack in Docker, behind one address
	@sh deploy/up.sh
	@docker compose ps

down: ## Stop the stack in Docker; its volumes stay
	docker compose down

# Made once, with secrets of its own; yours to edit afterwards.
.env:
	@umask 077 && sh deploy/make-env.sh .env.example >.env.new && mv .env.new .env
	@echo "made .env with new secrets"

# UV=... names the tool where it is not on the PATH. Versions stay as they are; UPGRADE=--upgrade
# takes the newest.
UV ?= uv
PIN := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE)
requirements: ## Pin requirements*.in again (needs uv)
	$(PIN) requirements.in -o requirements.txt
	$(PIN) --constraints requirements.txt requirements-dev.in -o requirements-dev.txt
	$(PIN) --constraints requirements-dev.txt requirements-bench.in -o requirements-bench.txt

install: $(VENV)/.dev ## Only make .venv, with all that development needs

clean: ## Remove .venv and caches; data/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find libs services cli tests bench -name __pycache__ -prune -exec rm -rf {} +

# The stamps say which pins .venv was made from, so that a second run needs no network.

$(VENV)/.run: requirements.txt $(SERVER_PACKAGES:%=%/pyproject.toml) $(VENV)/.made
	@echo "installing requirements.txt into $(VENV) (once)"
	@$(PIP) install --require-hashes -r requirements.txt
	@$(PIP) install --no-deps --no-build-isolation $(SERVER_PACKAGES:%=-e %)
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(PACKAGES:%=%/pyproject.toml) $(VENV)/.made
	@echo "installing requirements-dev.txt into $(VENV) (once)"
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@$(PIP) install --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	@touch $@ $(VENV)/.run

$(VENV)/.bench: requirements-bench.txt $(VENV)/.dev
	@echo "installing requirements-bench.txt into $(VENV) (once)"
	@$(PIP) install --require-hashes -r requirements-bench.txt
	@touch $@

$(VENV)/.made:
	@found=; \
	for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			found=$$python; break; \
		fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "oncedrop needs Python 3.11 or newer: none found (PYTHON=/path/to/python3 names one)" >&2; \
		exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$found cannot make a virtual environment: install python3-venv (Debian, Ubuntu), then try again" >&2; \
		exit 1; \
	fi; \
	"$$found" -m venv --clear $(VENV)
	@touch $@
