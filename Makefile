# Each target sets up what it needs: Python 3.10 to 3.13 and make are all that has to be there.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo demo-retraining up test test-cluster conformance check format bench lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Create .venv with everything but torch
	@tools/setup dev,serving,pipelines,loadtest

demo: ## Train on real flights, serve the model, predict; ends with the commands to type next
	@tools/setup serving,pipelines
	@$(BIN)/glowplug demo

demo-retraining: ## A year of flights with the whole loop: drift, retraining, canary, rollback; ends with a picture
	@tools/setup serving,pipelines,controllers
	@$(BIN)/glowplug demo retraining

up: ## Run the local machine in the foreground
	@tools/setup serving
	@$(BIN)/glowplug up

test: ## Run every test, those that need torch (3 GB) included
	@tools/setup dev,serving,pipelines,loadtest,torch,torch-test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-cluster: setup ## Run the conformance cases on the cluster of $$KUBECONFIG; see tests/conformance
	$(BIN)/python -m pytest tests/conformance --target=cluster

conformance: setup ## Run the same cases here and on the cluster of $$KUBECONFIG; see docs/conformance.md
	$(BIN)/python -m benchmarks.conformance

check: setup ## Lint, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format the code, fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Measure everything, write docs/benchmarks.json and docs/benchmarks.md
	$(BIN)/python -m benchmarks

bench-%: setup ## Measure one: machine, ingress, demo, serving, coldstart, ...
	$(BIN)/python -m benchmarks $*

lock: setup ## Resolve constraints.txt anew
	$(BIN)/python tools/lock.py

clean: ## Remove .venv, caches, and the demo's data
	rm -rf $(VENV) .glowplug .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
