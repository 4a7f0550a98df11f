# `make` lists the commands. Everything runs in .venv, which `make setup` makes.
VENV ?= .venv
PYTHON ?= python3.11
export PATH := $(abspath $(VENV))/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev submission show test test-area test-all check verify images grade bench

help: ## list the commands
	@echo "usage: make COMMAND"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

setup: $(VENV)/run ## install the locked packages into .venv
setup-dev: $(VENV)/dev

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing the locked packages into $(VENV): about 6 GB, some minutes"
	python -m pip install --quiet --require-hashes -r requirements.lock
	python -m pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing the locked packages into $(VENV): about 6 GB, some minutes"
	python -m pip install --quiet --require-hashes -r requirements-dev.lock
	python -m pip install --quiet --no-deps --editable .
	@touch $@ $(VENV)/run

submission: setup ## set up and rebuild the submission on the data that data.dvc names
	@weighin check
	@weighin fetch
	@dvc repro
	@dvc metrics show
	@echo "handed in: submission/ (open submission/report.html)"

show: setup ## experiments side by side: F1, MACs, score, and the parameters that differ
	@dvc exp show --only-changed --no-pager --precision 4 --keep '(^|:)(f1|macs|score|test_score)$$' \
		--drop '^(data|work|src|stages|submission|requirements|Created|State|Executor|(.*:)?(accuracy|calibration_error|parameters|peak_memory|robustness.*|size|test_accuracy|.*_(low|high|under_floor))$$)'

AREAS := pipeline kills cluster portability demo growth docker rebuild
empty :=
EVERYDAY := not ($(subst $(empty) $(empty), or ,$(AREAS)))
PYTEST := python -m pytest --durations=10
ONCE = $(if $(REPEATS),, and not repeats)

test: setup-dev ## set up and pass the tests
	$(PYTEST) -n 2 --dist loadfile -m "$(EVERYDAY) and not serial"
	$(PYTEST) -m "$(EVERYDAY) and serial"

test-area: setup-dev ## the tests of one area: make test-area AREA=pipeline [REPEATS=1]
	@[ -n "$(filter $(AREA),$(AREAS))" ] || { echo "error: AREA must be one of $(AREAS)"; exit 2; }
	$(PYTEST) $(if $(filter $(AREA),pipeline portability growth),-n 2 )-m "$(AREA) and not serial$(ONCE)" || [ $$? = 5 ]
	$(PYTEST) -m "$(AREA) and serial$(ONCE)" || [ $$? = 5 ]

test-all: setup-dev ## the tests of everyday and of every area with their repeats, one after the other
	$(MAKE) test
	@for area in $(AREAS); do $(MAKE) test-area REPEATS=1 AREA=$$area || exit $$?; done

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
