.DEFAULT_GOAL := help
.PHONY: help setup demo demo-check test test-deploy check generate boards bench release lock
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.complete ## Make .venv with everything the demo and the tests import

.venv/.complete: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || .ci/debian-packages python3-venv-is-missing=python3-venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## Run the whole thing on an embedded stack, with traffic, until Ctrl-C
	@.ci/debian-packages prometheus=prometheus || echo "the demo goes on without Prometheus"
	@$(BIN)/python -m demo

demo-check: setup ## A minute of traffic, then every number on /metrics against what the traffic did
	@.ci/debian-packages promtool=prometheus || echo "the demo goes on without Prometheus"
	@$(BIN)/python -m demo check

test: setup check ## Install what the tests need, then lint, types, layers and every test
	@.ci/debian-packages redis-server=redis-server promtool=prometheus amtool=prometheus-alertmanager node=nodejs npm=npm openssl=openssl chromium=chromium
	$(BIN)/pytest --numprocesses 2 --dist loadfile

test-deploy: setup ## Hosts made of nothing: site.yml, boot, kill, deploy, roll-back (root, Debian; twelve minutes, not in CI)
	@.ci/debian-packages debootstrap=debootstrap systemd-nspawn=systemd-container redis-server=redis-server ssh-keygen=openssh-client
	$(BIN)/pytest tests/deploy

release: setup ## Write dist/bitloot-ops-COMMIT.tar.gz: all that a host needs, for ansible/
	@PYTHON=$(BIN)/python .ci/release dist

check: setup ## Lint, types, layers, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m opsctl.generate --check

generate: setup ## Write the generated documents
	$(BIN)/python -m opsctl.generate

boards: setup ## Draw every Grafana board over the demo into docs/boards
	@.ci/debian-packages prometheus=prometheus chromium=chromium
	$(BIN)/python -m tests.boards

bench: setup ## Measure, as ratios taken in one run
	$(BIN)/python -m tests.bench

lock: ## Pin requirements/*.txt anew from pyproject.toml
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile $(LOCK) --extra demo --extra dev -o requirements/dev.txt pyproject.toml
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile $(LOCK) -c requirements/dev.txt -o requirements/base.txt pyproject.toml
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile $(LOCK) -o requirements/ansible.txt requirements/ansible.in

LOCK := --quiet --generate-hashes --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
