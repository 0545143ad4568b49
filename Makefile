# `make` lists the verbs. Each sets up what it needs, in .venv inside this checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= $(or $(MIEN_TEST_DATA),../shared/data)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lowest lint fix docs bench evaluate models lock clean

help:  ## list these verbs
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/run  ## see it work: on pictures that come with it, and on LFW where it lies beside
	$(BIN)/mien demo
	@echo; echo "To use mien in this shell: . $(BIN)/activate"
	@if [ -d $(DATA)/lfw/lfw-deepfunneled ]; then \
		echo; echo "And on people of LFW, with other pictures than those enrolled:"; echo; \
		$(BIN)/mien demo $(DATA)/lfw/lfw-deepfunneled --save mien-demo/lfw; fi

test: $(VENV)/dev  ## lint, then every test
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest

lowest: $(VENV)/lowest  ## the core's tests on the lowest versions of the dependencies that are allowed
	$(VENV)/lowest/bin/python -m pytest -q tests/conformance tests/detection tests/golden \
		tests/test_alignment.py tests/test_images.py tests/test_recognition.py

lint: $(VENV)/dev  ## formatter, linter, strict types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: $(VENV)/dev  ## format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/docs  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/run  ## speed, side by side with rivals and with physical limits
	$(BIN)/python benchmarks/speed.py --data $(DATA)

evaluate: $(VENV)/dev  ## LFW View 2 and the thresholds' promises, from raw pictures, with a report
	$(BIN)/mien evaluate lfw --data $(DATA)/lfw --model embedded --model embedded-accurate -o evaluation.html
	$(BIN)/mien evaluate detection $(DATA)/detection/wider_val_subset

models: $(VENV)/dev  ## rebuild the models inside the package from their originals, and compare
	$(BIN)/python tools/build_models.py --check

setup: $(VENV)/dev  ## everything for working on mien

EXTRAS := $(addprefix --extra ,evaluation heic parquet fast crypto postgres milvus server client heads video)
lock:  ## renew the lock files (needs uv)
	uv pip compile -q --universal --generate-hashes --no-header pyproject.toml -o requirements/run.lock
	uv pip compile -q --universal --generate-hashes --no-header pyproject.toml --group dev $(EXTRAS) -c requirements/run.lock -o requirements/dev.lock
	uv pip compile -q --universal --generate-hashes --no-header pyproject.toml --group dev --group docs $(EXTRAS) -c requirements/dev.lock -o requirements/docs.lock

clean:  ## remove what the other verbs made
	rm -rf $(VENV) site mien-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

# Each stamp is one step of setting up; make skips what is done and current.
$(VENV)/run: $(BIN)/python requirements/run.lock pyproject.toml
	$(BIN)/python -m pip install -q --require-hashes -r requirements/run.lock
	$(BIN)/python -m pip install -q --no-deps -e .
	@touch $@

$(VENV)/dev: $(VENV)/run requirements/dev.lock requirements/torch.txt
	$(BIN)/python -m pip install -q --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install -q -r requirements/torch.txt
	@touch $@

$(VENV)/lowest: $(VENV)/run requirements/lowest.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install -q -r requirements/lowest.txt
	$@/bin/python -m pip install -q --no-deps -e .
	@touch $@

$(VENV)/docs: $(VENV)/dev requirements/docs.lock
	$(BIN)/python -m pip install -q --require-hashes -r requirements/docs.lock
	@touch $@
