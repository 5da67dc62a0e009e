# Every target sets up what it needs: a .venv with the exact versions of constraints.txt.

SHELL := /bin/bash
PYTHON ?= python3
REMOTE ?=
DETECTOR ?= patchcore
PORT ?= 8000
MEMORY ?= memory
LOG ?= monitoring
# No remote is the default until its account exists: DVC asks a default one for data that is not
# cached, and retries one that is not there for over ten minutes.
TARGET = $(or $(REMOTE),$(shell dvc config core.remote 2> /dev/null),azure)
VENV := .venv
BIN := $(VENV)/bin

# The commands of dvc.yaml start with `python`: that is the one of .venv.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# A person at a terminal sees pip's progress; a log file does not.
QUIET := $(if $(MAKE_TERMOUT),,--quiet)

# Every test process holds half a gigabyte.
CORES := --numprocesses logical --maxprocesses 8

.DEFAULT_GOAL := help
.PHONY: help repro test test-slow drift bench stale lint push pull readme evidently azurite azurite-stop mlflow cloud serve propose clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

repro: $(VENV)/.core ## run what changed of the pipeline, from the source to the leaderboard
	@python tools/lock.py
	dvc repro

test: $(VENV)/.test ## run the tests on all cores, a few minutes
	python -m pytest $(CORES) --dist worksteal

test-slow: $(VENV)/.test ## run the slow tests: kill and resume, push and pull
	python -m pytest $(CORES) --dist loadgroup -m slow --timeout 900 --durations 25

drift: $(VENV)/.core ## let the test images drift: metrics/drift, and the report page
	@python tools/lock.py
	dvc repro drift/dvc.yaml
	python tools/robustness.py
	dvc repro compare

bench: $(VENV)/.core ## compare speed and memory with ffmpeg and a bare torch loop, 5 minutes
	dvc repro --quiet fetch_sample fetch_weights
	python benchmarks/pipeline.py

stale: $(VENV)/.core ## list the results under benchmarks/ that measured other code than we have
	python benchmarks/measured.py

lint: $(VENV)/.dev ## check style, types, and that no secret lies in the tree
	ruff check .
	mypy
	git ls-files -z | xargs -0 detect-secrets-hook --disable-plugin HexHighEntropyString

push: $(VENV)/.core ## send data and models to the remote (REMOTE=name for another than azure)
	@python tools/lock.py
	python tools/remote.py $(TARGET)
	dvc push --remote $(TARGET)

pull: $(VENV)/.core ## fetch data and models from the remote (REMOTE=name for another than azure)
	@python tools/lock.py
	python tools/remote.py $(TARGET)
	dvc pull --remote $(TARGET)

readme: $(VENV)/.core ## write the table of metrics/ into README.md
	python tools/readme.py

evidently: .evidently/.ready ## a page of Evidently on LOG, the folder of `blackswan serve --log`
	.evidently/bin/python tools/evidently_report.py $(LOG) --out evidently.html

azurite: $(VENV)/.core ## start Azure's own storage emulator and make it this clone's remote
	python tools/azurite.py start

azurite-stop: $(VENV)/.core ## stop the emulator and forget it as this clone's remote
	python tools/azurite.py stop

mlflow: $(VENV)/.mlflow ## show the runs of MLFLOW_TRACKING_URI, by default those in mlflow.db, on port 5000
	MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}

cloud: $(VENV)/.mlflow $(VENV)/.spark ## the cloud path on this machine: Spark, registry, endpoint, client
	python tools/cloud.py

serve: $(VENV)/.serve $(VENV)/.memory ## the inspection page of DETECTOR on PORT, with its memory of defects
	@test -d data/detectors/$(DETECTOR) || { echo "data/detectors/$(DETECTOR) is missing; run make repro, or make pull" >&2; exit 1; }
	blackswan index data/defects --memory $(MEMORY)
	blackswan serve data/detectors/$(DETECTOR) --port $(PORT) --open \
		--decisions decisions --memory $(MEMORY) --streams streams --log $(LOG)

propose: $(VENV)/.llm ## show what `blackswan propose-labels` would send of DETECTOR's test images, in .propose/
	@test -d data/detectors/$(DETECTOR) || { echo "data/detectors/$(DETECTOR) is missing; run make repro, or make pull" >&2; exit 1; }
	blackswan propose-labels ask data/detectors/$(DETECTOR) data/dataset/test --model MODEL --images 5 \
		--price-in 0 --price-out 0 --budget 0 --dry-run .propose

clean: ## remove caches and leftovers; data, models and .venv stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache build *.egg-info dvclive dvc_plots
	find . -name .venv -prune -o -name .evidently -prune -o -name .azurite -prune -o -name .git -prune -o \
		\( -name __pycache__ -o -name '.*.partial' -o -name '.*.old' -o -name '.*.tmp' \) -prune -exec rm -rf {} +

$(VENV)/.llm $(VENV)/.memory $(VENV)/.mlflow $(VENV)/.serve $(VENV)/.spark: $(VENV)/.core
	@$(BIN)/python -m pip install $(QUIET) --disable-pip-version-check \
		--constraint constraints.txt --editable '.[$(@:$(VENV)/.%=%)]'
	@touch $@

# An environment of its own, for Evidently wants an older pandas.
.evidently/.ready: tools/evidently.txt
	@test -x .evidently/bin/python || $(PYTHON) -m venv .evidently
	@.evidently/bin/python -m pip install $(QUIET) --disable-pip-version-check --requirement $<
	@touch $@

# One stamp per set of packages, each a superset of the one before: make installs again when
# pyproject.toml or constraints.txt change.
$(VENV)/.core: STAMPS := $(VENV)/.core
$(VENV)/.test: STAMPS := $(VENV)/.core $(VENV)/.test
$(VENV)/.test: EXTRAS := [test]
$(VENV)/.dev: STAMPS := $(VENV)/.core $(VENV)/.test $(VENV)/.dev
$(VENV)/.dev: EXTRAS := [dev]
$(VENV)/.core $(VENV)/.test $(VENV)/.dev: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (the first time: some minutes and 1.8 GB)"
	@$(BIN)/python -m pip install $(QUIET) --disable-pip-version-check \
		--constraint constraints.txt --editable '.$(EXTRAS)'
	@touch $(STAMPS)
