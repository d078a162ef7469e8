# What a newcomer needs: `make demo`, `make test`. The rest: `make help`.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
PY := .venv/bin/python
DEV := .venv/.dev
PYTEST ?= -n 3 --dist worksteal
.PHONY: help demo run test check audit lock bench clean

help:  ## what this file can do
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# One sentence for what is missing, before pip can say it in fifty.
$(PY):
	@command -v $(PYTHON) >/dev/null || { echo "Install Python 3.11 or newer (Debian, Ubuntu: apt install python3 python3-venv)."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Install Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())'). Then: make PYTHON=python3.11 …"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Install Python's venv module (Debian, Ubuntu: apt install python3-venv), then try again."; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python could not make .venv; see the lines above."; exit 1; }

# pip's words for one requirements file; pyvips alone comes as source, and is made into a wheel without a compiler.
define pip
	@$(PY) -m pip install -q --disable-pip-version-check --only-binary=:all: --no-binary=pyvips -r $(1) || { echo "pip could not install $(1): check the network (or PIP_INDEX_URL), a 64-bit Linux with glibc, and the lines above; then try again."; exit 1; }
endef

.venv/.run: requirements.txt | $(PY)
	@echo "installing what the demo needs into .venv (once, under 150 MB) …"
	$(call pip,requirements.txt)
	@touch $@

.venv/.kinds: requirements-kinds.txt requirements.txt | $(PY)
	@echo "installing what Jobsite needs into .venv (once) …"
	$(call pip,requirements-kinds.txt)
	@touch $@ .venv/.run

$(DEV): requirements-dev.txt requirements-kinds.txt requirements-s3.txt requirements.txt | $(PY)
	@echo "installing what the tests need into .venv (once) …"
	$(call pip,requirements-dev.txt)
	@touch $@ .venv/.run .venv/.kinds

demo: .venv/.run  ## three renders and a stitch, one cancelled, one refunded: the promise, shown (CLIPS="a.mp4 b.mov")
	@$(PY) manage.py demo $(CLIPS)

run: .venv/.kinds  ## the platform on http://127.0.0.1:8000 (PORT, HOST, JOBSITE_HOME); Ctrl-C ends it
	@exec $(PY) manage.py up

test: $(DEV)  ## everything, on SQLite and then on PostgreSQL (TEST_DATABASE_URL or DATABASE_URL choose another server)
	@echo "== SQLite =="
	@env -u DATABASE_URL -u PYTHONDONTWRITEBYTECODE $(PY) -m pytest $(PYTEST)
	@echo "== PostgreSQL =="
	@env -u PYTHONDONTWRITEBYTECODE $(PY) -m tests.postgres $(PY) -m pytest $(PYTEST)

check: $(DEV)  ## what CI runs first: format, lint, imports, types, missing migrations, API schema
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && \
	export JOBSITE_HOME="$$home" ENV_FILE=/dev/null && unset DATABASE_URL SITE_URL DEBUG && set -e && \
	$(PY) -m ruff format --check -q . && \
	$(PY) -m ruff check -q . && \
	.venv/bin/lint-imports --no-logo && \
	$(PY) -m mypy && \
	$(PY) -m mypy --config-file client/pyproject.toml client/src && \
	$(PY) manage.py makemigrations --check --dry-run && \
	$(PY) manage.py spectacular --validate --fail-on-warn --file /dev/null && \
	$(PY) manage.py check

audit: $(DEV)  ## known weaknesses of what is installed; weekly (AUDIT="-s osv" asks another service)
	@$(PY) -m pip_audit --local --skip-editable --progress-spinner off $(AUDIT)

lock: $(PY)  ## requirements.lock anew: all that runs, by version and hash, after a change of requirements*.txt
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && $(PY) -m venv "$$home" && \
	"$$home/bin/pip" install -q --disable-pip-version-check pip-tools==7.6.2 && \
	"$$home/bin/pip-compile" -q --generate-hashes --strip-extras --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
		-o requirements.lock requirements.txt requirements-kinds.txt requirements-s3.txt requirements-ops.txt

bench: $(DEV)  ## how fast, as ratios to the peers, about ten minutes (BENCH="throughput --quick")
	@$(PY) -m bench $(BENCH)

clean:  ## remove the virtual environment and caches (var/, the platform's data, stays)
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
