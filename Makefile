# Every target sets up what it needs, once: the environment when requirements.lock is newer than it, the package when
# setup.cfg or pyproject.toml is.
#
#   PYTHON     interpreter the environment is made with (3.11 or newer)
#   PIP_FLAGS  further flags for pip, e.g. an index that serves CPU builds of torch

PYTHON ?= python3
PIP_FLAGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
STUDY := OMP_NUM_THREADS=1 $(PY) -m wm.experiments.studies
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready

# What `make bench` compares: searches of the compact model by success, those of about auto's effort on more goals, a few
# of the patch model by success on few goals, and all of its searches by final energy.
SEARCHES := cem-300x30,icem,think-fast,think-2,think-auto,mppi-128x6,log-mppi-64x2,predictive-sampling-128x6,$\
	gradient-4x8,gradient-2x5,gradient+cem-64x2-2x4,lbfgs-2x12-p16,cma-es-32x5
EFFORTS := think-auto,think-fast,think-1,icem-32x3-p48,icem-64x2-p48,log-mppi-64x2,lbfgs-2x6
PATCH_EFFORTS := think-fast,think-auto,lbfgs-2x12-p16
PATCH_SEARCHES := think-fast,think-auto,icem-64x4,mppi-64x2,log-mppi-64x2,predictive-sampling-64x2,gradient-2x5,$\
	gradient+cem-64x2-2x4,lbfgs-2x12-p16,lbfgs-2x30-p16,cma-es-32x5

# Exit code of a study that misses its bar; the page says so. Any other one stops `make bench`.
MISSED := 3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint format typecheck quick-bars bench mutants studies model clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Make the environment in .venv (every target below does this by itself)

demo: $(READY) ## Plan a push-T task from a goal picture; pictures and report go to demo/
	$(VENV)/bin/wm demo --out demo

# First two at once, each file's in one process; then those that look at the clock, with nothing beside them.
test: $(READY) ## Run the tests, array shapes checked
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m "not real_time" -n 2 --dist loadfile --durations 15
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m real_time

lint: $(READY) ## Check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(READY) ## Rewrite the sources in the project's format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# A static checker does not follow the folder mapping of an editable install, so it gets a copy in which the folders lie
# where their import names say.
typecheck: $(READY) ## Check the type hints
	rm -rf build/setuptools build/typecheck
	$(PIP) install --quiet --no-deps --no-build-isolation --target build/typecheck .
	cd build/typecheck && ../../$(PY) -m mypy --config-file ../../setup.cfg --cache-dir ../mypy wm

quick-bars: $(READY) ## Check that the shipped model still reaches its goals (20 development goals; their interval is 20 points wide)
	rm -rf build/quick-eval
	OMP_NUM_THREADS=1 $(VENV)/bin/wm eval --env pusht --model pusht --planner icem --episodes 20 --seed 1000 \
		--out build/quick-eval --min-success 0.8 --no-baselines

# A study that misses a bar exits with $(MISSED); its figures are on the page all the same. Rivals run their own code where
# a folder with it is named (make bench DINO_WM=DIR STABLE_WORLDMODEL=DIR LEWM=DIR), else a loop of ours that does what
# theirs does. Success and energies keep what has been played and go on from there.
bench: $(READY) ## Measure speed (some hours, with nothing else running); results go to bench/, their tables to docs/benchmarks.md
	$(if $(STABLE_WORLDMODEL)$(LEWM),test -n "$(STABLE_WORLDMODEL)" -a -n "$(LEWM)" || { \
		echo "make bench: STABLE_WORLDMODEL and LEWM go together, came one of them." >&2; exit 2; })
	$(VENV)/bin/wm bench --out bench
	$(PY) -m wm.experiments.studies.deadline --out bench/deadline.json || test $$? -eq $(MISSED)
	$(PY) -m wm.experiments.studies.deadline --think auto --deadline-ms 50 --out bench/deadline_auto.json || \
		test $$? -eq $(MISSED)
	$(PY) -m wm.experiments.studies.deadline --planner gradient --deadline-ms 50 --out bench/deadline_gradient.json || \
		test $$? -eq $(MISSED)
	$(PY) -m wm.experiments.studies.scaling --out bench/scaling.json || test $$? -eq $(MISSED)
	$(PY) -m wm.experiments.studies.rival_cem --samples 32 --out bench/rival_cem.json \
		$(if $(DINO_WM),--rival $(DINO_WM)) || test $$? -eq $(MISSED)
	$(PY) -m wm.experiments.studies.rival_cem_lewm --out bench/rival_cem_lewm.json \
		$(if $(STABLE_WORLDMODEL),--rival $(STABLE_WORLDMODEL) --rival-model $(LEWM)) || test $$? -eq $(MISSED)
	$(VENV)/bin/wm eval --env pusht --model pusht --episodes 600 --seed 8 --threads 2 --no-baselines --out bench/eval
	$(VENV)/bin/wm eval --env pusht --model pusht-patch --screen pusht --episodes 100 --seed 7 --threads 2 --no-baselines \
		--out bench/eval_patch
	$(PY) -m wm.experiments.studies.success_curve --settings $(SEARCHES) --episodes 300 --seed 12 --workers 2 \
		--out bench/success_curve || test $$? -eq $(MISSED)
	$(PY) -m wm.experiments.studies.success_curve --settings $(EFFORTS) --episodes 600 --seed 13 --workers 2 \
		--out bench/effort
	$(PY) -m wm.experiments.studies.success_curve --model pusht-patch --settings $(PATCH_EFFORTS) --episodes 40 --seed 12 \
		--workers 2 --out bench/patch_curve
	$(PY) -m wm.experiments.studies.same_energy --model pusht-patch --problems 20 --seed 9 --threads 2 \
		--settings $(PATCH_SEARCHES) --out bench/same_energy.json || test $$? -eq $(MISSED)
	$(PY) -m wm.experiments.report.benchmarks --bench bench --docs docs

mutants: $(READY) ## Delete the guards one at a time; each time a test must fail (hours; goes on where it was stopped)
	OMP_NUM_THREADS=1 $(PY) -m tests.mutants.run

# Two studies write one file at their end, and are skipped once it is there; the others keep every finished episode and
# go on from there. One that misses its bar fails, and its file keeps the name *.failed.json.
studies: $(READY) ## Measure what docs/safety.md asks, then compare encoders and training options (a day); results go to studies/; again: goes on
	mkdir -p studies
	test -e studies/shield_fuzz.json || { \
		$(STUDY).shield_fuzz --steps 1000000 --out studies/shield_fuzz.failed.json && \
		mv studies/shield_fuzz.failed.json studies/shield_fuzz.json; }
	test -e studies/stop_time.json || { \
		$(STUDY).stop_time --runs 200 --out studies/stop_time.failed.json && \
		mv studies/stop_time.failed.json studies/stop_time.json; }
	$(STUDY).goal_attacks --episodes 1000 --out studies/goal_attacks
	$(STUDY).safety_cost --episodes 200 --out studies/safety_cost
	$(STUDY).control_rate --minutes 10 --out studies/control_rate
	test -e data/pusht || $(VENV)/bin/wm collect --env pusht --episodes 2000 --out data/pusht
	$(STUDY).encoders --data data/pusht --out studies/encoders
	test -e runs/model/draft/model.safetensors || $(VENV)/bin/wm build --out runs/model
	$(STUDY).training_options --data runs/model/data --draft runs/model/draft/model.safetensors --seed 1040 \
		--episodes 200 --out studies/training_options

model: $(READY) ## Make the shipped push-T model again from nothing: collect, pretrain, train
	$(VENV)/bin/wm build --out runs/model

clean: ## Remove what the targets made; .venv, data/ and runs/ stay
	rm -rf build demo bench studies *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "wm needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 | head -n 1)." \
			"Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(LOCKED): requirements.lock | $(PY)
	$(PIP) install --quiet --no-deps $(PIP_FLAGS) -r requirements.lock
	@touch $@

$(READY): $(LOCKED) setup.cfg pyproject.toml
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
