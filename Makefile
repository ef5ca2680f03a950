# `make help` lists the targets. PYTHON picks the interpreter (3.11-3.13) that .venv is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXP ?= demo
# Runs side by side; without it, as many as suit the cores, the memory and the runs.
JOBS ?=
# Processes of the tests, of one thread and about a gigabyte each; by default as many as there are cores, up to 8.
WORKERS ?= auto
ARGS ?=
# W&B runs that are uploaded side by side.
UPLOADS ?= 4
# What pip installs as torch: another version, or "torch==... --index-url ..." for PyTorch's own CPU or CUDA builds.
TORCH ?= torch==2.13.0
# A file of versions, such as .ci/demo.lock, those that the demo was last tried with; none takes the newest allowed.
LOCK ?=
# What `make dist` tries the wheel on; those that are not there are left out.
PYTHONS ?= 3.11 3.12 3.13
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs cv status summary sweep evidence wandb-sync bench dist lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed ## create .venv and install whqa with the tools of its tests

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet $(if $(LOCK),--constraint $(LOCK)) --editable ".[dev]"
	@touch $@

demo: setup ## the main job on built-in phantoms: train, one table, then judge a mask of a new phantom (minutes on 2 cores)
	@$(BIN)/whqa cv experiment=demo
	@$(BIN)/whqa data phantom --cases 1 --seed 100 --spacing 2.5 --faults 3 --out data/demo-scan
	@$(BIN)/whqa assess data/demo-scan/ct_train_1001_image.nii.gz data/demo-scan/ct_train_1001_mask.nii.gz \
	  --reference data/demo-scan/ct_train_1001_label.nii.gz --model runs/demo -o runs/demo/assess

test: setup ## the default tests (no slow, no gpu)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## the site of docs/ in site/, after drawing the diagram in docs/architecture.md from the imports
	@$(BIN)/python -m pip install --quiet --editable ".[docs]"
	$(BIN)/python tests/test_architecture.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "site/index.html; its search works under $(BIN)/mkdocs serve"

cv: setup ## full cross-validation, resumed where it stopped: make cv EXP=acdc JOBS=2 ARGS="data.root=..."
	@$(BIN)/whqa cv experiment=$(EXP) $(ARGS) $(if $(JOBS),--jobs $(JOBS))

status: setup ## what has become of every run, also while they run: make status, make status EXP=demo ARGS=--watch
	@$(BIN)/whqa status $(if $(filter-out file default,$(origin EXP)),runs/$(EXP)) $(ARGS)

summary: setup ## table and page of a finished experiment again: make summary EXP=demo
	@$(BIN)/whqa summarize runs/$(EXP)

sweep: setup ## cross-validate every value of a file of conf/sweep, one table: make sweep EXP=demo SWEEP=head ARGS="seed=1"
	@$(BIN)/whqa sweep experiment=$(EXP) sweep=$(or $(SWEEP),learning_rate) $(ARGS) $(if $(JOBS),--jobs $(JOBS))

evidence: setup ## all rivals, sanity rows and ablations, then tables and figures of them: make evidence EXP=acdc ARGS="data.root=..."
	@$(BIN)/whqa sweep experiment=$(EXP) sweep=evidence name=$(EXP)_evidence $(ARGS) $(if $(JOBS),--jobs $(JOBS))
	@$(BIN)/whqa evidence runs/$(EXP)_evidence

wandb-sync: setup ## upload offline runs of W&B, what is uploaded is left out: make wandb-sync EXP=demo UPLOADS=8
	@$(BIN)/python -c "import sys; from whqa.callbacks.mirror import trouble_online as t; w = t(); sys.exit(w and f'nothing is uploaded: {w}; the same command uploads it later')"
	@find $(if $(filter-out file default,$(origin EXP)),runs/$(EXP),runs) -type d -name 'offline-run-*' -prune -print0 | \
	  xargs -0 -r $(BIN)/wandb sync --yes --skip-synced -n $(UPLOADS) $(ARGS)

bench: setup ## time the parts beside MONAI, TorchIO, nnU-Net's way, scipy (minutes)
	@$(BIN)/python -m pip install --quiet --editable ".[bench]" || echo "some peers are not installed; their rows say so"
	@$(BIN)/python tests/bench/bench.py $(ARGS)

dist: setup ## wheel and sdist in dist/, checked, and the wheel tried in empty environments: make dist PYTHONS="3.12"
	@$(BIN)/python -m pip install --quiet --editable ".[release]"
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	@UV=$(BIN)/uv TORCH="$(TORCH)" .ci/smoke $(PYTHONS)

lock: setup ## write .ci/demo.lock again: the versions of the demo's environment on every system and Python
	@$(BIN)/python -m pip install --quiet --editable ".[release]"
	@$(BIN)/uv pip compile pyproject.toml --universal --upgrade --no-header --no-annotate --quiet --output-file .ci/demo.lock
	@echo .ci/demo.lock

clean: ## remove caches of the tools, never runs or data
	rm -rf .pytest_cache .mypy_cache .ruff_cache build dist site
