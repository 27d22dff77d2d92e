# `make` lists the targets. Every command that is used twice is one.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Tools, PostgreSQL and, in CI, compiled code: shared by all checkouts of a user.
export LIFEBOAT_CACHE ?= $(HOME)/.cache/lifeboat
# In CI every run is a fresh clone. Outside it the compiled code stays where a second run finds it.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(LIFEBOAT_CACHE)/target
# No clone is compiled twice there.
export CARGO_INCREMENTAL := 0
endif
export CARGO_TARGET_DIR ?= $(CURDIR)/target
export SAM_CLI_TELEMETRY := 0
export PYTHONDONTWRITEBYTECODE := 1
export PATH := $(CURDIR)/.venv/bin:$(PATH)

CLOUD := tests/local-cloud/cloud.py
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest -p no:cacheprovider --timeout 900 --durations 5
# Sessions side by side, each with servers of its own: tests wait more than they compute. WORKERS=0: one, in order.
WORKERS ?= 2
PARALLEL := -n $(WORKERS) --dist loadfile
FUNCTIONS := $(notdir $(wildcard functions/*))
ASL_VALIDATOR := tests/local-cloud/node_modules/.bin/asl-validator
# The machine's own, for what runs here. A deployment to AWS is built by `sam build`, for arm64.
ARCHITECTURE := $(if $(filter aarch64,$(shell uname -m)),arm64,x86_64)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ See it work
.PHONY: demo
demo: setup-demo ## Back up, prove, replicate, refuse: the whole road on this machine (KEEP=1 leaves the cloud up)
	@exec $(PYTHON) tests/local-cloud/demo.py

.PHONY: demo-chaos
demo-chaos: setup-demo ## Fail a database over under load, with an approval; end a second experiment by the emergency stop
	@exec $(PYTHON) tests/local-cloud/demo_chaos.py

.PHONY: cloud-up cloud-down cloud-status cloud-deploy
cloud-up: setup-demo ## Start the local cloud and leave it running
	@$(PYTHON) $(CLOUD) up
cloud-deploy: ## Build the functions and deploy template.yaml to it
	@$(PYTHON) $(CLOUD) deploy
cloud-status: ## What runs, where, and what the logs say when it does not
	@$(PYTHON) $(CLOUD) status
cloud-down: ## Stop it
	@$(PYTHON) $(CLOUD) down

##@ Operate
.PHONY: approve
approve: ## Approve an experiment: OPERATION=… PLAN=… APPROVER=…, KMS=… or KEY=<file>; EXPIRES=<minutes>, FUNCTION=… hands it in
	@python3 functions/chaos_runner/tools/approve.py --operation '$(OPERATION)' --plan '$(PLAN)' --approver '$(APPROVER)' \
	  --expires '$(or $(EXPIRES),60)' $(if $(KMS),--kms-key '$(KMS)') $(if $(KEY),--key-file '$(KEY)') \
	  $(if $(FUNCTION),--function '$(FUNCTION)') $(if $(REGION),--region '$(REGION)')

##@ Build
.PHONY: setup setup-demo
setup: ## Install the pinned tools and PostgreSQL (quick when it has been done)
	@python3 tests/local-cloud/setup_tools.py test
setup-demo:
	@python3 tests/local-cloud/setup_tools.py demo

.PHONY: build
build: setup-demo ## Build the functions in release, for this machine
	@sam build --config-env local --build-dir .aws-sam/release \
	  --parameter-overrides ParameterKey=Architecture,ParameterValue=$(ARCHITECTURE)

.PHONY: clean
clean: ## Remove what was built here (not the shared caches)
	@rm -rf target .aws-sam .local-cloud .cache

##@ Test
.PHONY: test
test: setup ## Everything: check, then every suite; sets itself up
	@.ci/suites check core rust local-cloud rds-local e2e permissions

.PHONY: check
check: setup ## What CI runs before the slow suites: formats, lints, templates, state machines
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
	ruff check --quiet --config .config/ruff.toml --no-cache tests stepfunctions bench functions
	cfn-lint template.yaml
	sam validate --lint --region us-east-1 --config-env local
	$(PYTHON) stepfunctions/lint.py
	checkov --config-file .config/checkov.yaml
	for machine in stepfunctions/*.asl.json; do $(ASL_VALIDATOR) --json-path "$$machine"; done

.PHONY: test-core test-rust test-local-cloud test-rds-local test-e2e test-permissions test-faults test-scenarios-full
test-core: ## The decisions: seconds, run on save
	@cargo nextest run --locked -p dr-core
test-rust: setup ## Every other Rust test, with real PostgreSQL servers
	@cargo nextest run --locked --workspace --exclude dr-core
test-local-cloud: setup ## The local cloud and its mends
	@$(PYTEST) $(PARALLEL) tests/local-cloud/tests
test-rds-local: setup ## The RDS API over real databases, driven by boto3 and the AWS CLI
	@cargo build --locked --quiet -p rds-local
	@$(PYTEST) $(PARALLEL) tests/rds-local/python
test-e2e: setup ## The deployed template on the local cloud, every state of every machine in trouble and trouble on the way to AWS among it
	@$(PYTEST) --timeout 3600 $(PARALLEL) tests/scenarios/e2e $(PYTEST_ARGS)
test-permissions: setup ## What its roles may do, beside what they did in `make test-e2e`, which comes first
	@$(PYTEST) tests/scenarios/permissions
test-faults: setup ## Of those, only trouble between functions and AWS, for every operation
	@$(PYTEST) --timeout 3600 tests/scenarios/e2e/test_faults.py $(PYTEST_ARGS)
test-scenarios-full: setup ## Every state with every error that it can meet, not only the subset (see tests/scenarios/README.md)
	@LIFEBOAT_SCENARIOS=full $(PYTEST) --timeout 7200 tests/scenarios/e2e/test_machines.py $(PYTEST_ARGS)

##@ Measure
.PHONY: bench
bench: setup ## Speed, size and cost beside what they are compared with, into docs/benchmarks.md (ONLY=digest for one)
	@$(if $(filter-out digest memory overhead backup,$(or $(ONLY),all)),$(MAKE) --no-print-directory build)
	@$(PYTHON) bench/bench.py $(ONLY)

##@ Keep
.PHONY: format
format: ## Format the Rust code
	@cargo fmt --all

.PHONY: errors-doc
errors-doc: ## Write docs/errors.md anew from the enum
	@cargo run --locked --quiet -p scenarios --bin errors-doc

.PHONY: deny
deny: ## Licences, advisories and sources of the dependencies (needs cargo-deny and the network)
	@cargo deny check

.PHONY: pins
pins: ## Resolve the Python pins anew from requirements/*.in (needs the network)
	@tests/local-cloud/requirements/resolve
