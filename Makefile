PYTHON ?= python3.11
BIN := .venv/bin
RUN := first-$(shell date +%Y%m%d-%H%M%S)
UNSEEN := runs/$(RUN)-unseen

.PHONY: train photos test cluster chaos check clean

train: .venv/installed
	$(BIN)/raydual train run.name=$(RUN)
	$(BIN)/raydual data synth $(UNSEEN) --images 6 --seed 2026 --categories circle --png
	$(BIN)/raydual count $(UNSEEN)/images --category circle --gif \
		--checkpoint runs/$(RUN) --out runs/$(RUN)/counted

photos: .venv/installed
	$(BIN)/raydual data import csv examples/pears/points.csv runs/$(RUN)-pears
	$(BIN)/raydual train --preset photo data.path=runs/$(RUN)-pears run.name=$(RUN) train.epochs=5
	$(BIN)/raydual count examples/pears/images/test --gif \
		--checkpoint runs/$(RUN) --out runs/$(RUN)/counted

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist load --maxschedchunk 1

cluster: .venv/installed
	$(BIN)/python -m pytest tests/cluster -m slow

chaos: .venv/installed
	rm -rf runs/chaos
	$(BIN)/python benchmarks/chaos.py runs/chaos
	$(BIN)/python benchmarks/hostile.py

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/audit.py

# torch first: of the versions that constraints.txt allows, the CPU build where the index has one
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,photo]"
	touch $@

clean:
	rm -rf .venv build *.egg-info
