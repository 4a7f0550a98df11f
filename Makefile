# `make` lists the commands. Everything runs in .venv, which `make setup` makes.
VENV ?= .venv
PYTHON ?= python3.11
export PATH := $(abspath $(VENV))/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev submission test test-slow test-docker test-rebuild check verify images grade bench

help: ## list the commands
	@echo "usage: make COMMAND"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

setup: $(VENV)/run ## install the locked packages into .venv
setup-dev: $(VENV)/dev

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run: requirements.lock pyproject.toml | $(VENV)/bin/python
	python -m pip install --quiet --require-hashes -r requirements.lock
	python -m pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	python -m pip install --quiet --require-hashes -r requirements-dev.lock
	python -m pip install --quiet --no-deps --editable .
	@touch $@ $(VENV)/run

submission: setup ## set up and rebuild the submission on the data that data.dvc names
	@weighin check
	@weighin fetch
	@dvc repro
	@dvc metrics show
	@echo "handed in: submission/ (open submission/report.html)"

test: setup-dev ## set up and pass the tests
	python -m pytest -m "not slow and not docker and not portability"

test-slow: setup-dev ## the tests that take minutes: real pipelines, kills, clusters
	python -m pytest -m "(slow or portability) and not docker"

test-docker: setup-dev ## the tests of the grader image, with a real engine
	python -m pytest -m "docker and not slow"

test-rebuild: setup-dev ## the tests of the rebuild image, 4 GB, built twice
	python -m pytest -m "docker and slow"

check: setup-dev ## what keeps the code as it is: types, lint, format
	ruff check
	ruff format --check
	mypy

verify: setup ## rebuild without the cache and compare every output with dvc.lock
	@weighin verify $(if $(STAGE),--stage $(STAGE)) $(if $(WORKERS),--workers $(WORKERS))

images: setup ## build both images and print what identifies them
	@for target in grader rebuild; do \
		sh docker/wheels.sh $$target .weighin/wheels/$$target && \
		sh docker/build.sh $$target .weighin/wheels/$$target weighin-$$target || exit $$?; \
	done

grade: ## grade in a container: make grade TEST=dir OUT=dir [TRUTH=csv]
	@[ -n "$(TEST)" ] && [ -n "$(OUT)" ] || { echo "error: make grade TEST=dir OUT=dir [TRUTH=csv]"; exit 2; }
	@[ -f submission/model.onnx ] || { echo "error: submission/model.onnx is not there; run make submission"; exit 8; }
	@sh docker/grade.sh weighin-grader submission/model.onnx "$(TEST)" "$(OUT)" $(if $(TRUTH),"$(TRUTH)")

bench: setup-dev ## measure the figures of the README here (QUICK=1: in minutes)
	python -m bench
