# Saddlepoint: `make demo` and `make test` need nothing but Python 3.11 and pip; each makes .venv when there is none.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   ?= .venv
PEERS  ?= .venv-peers
VPEERS ?= .venv-verifiers
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip
JOBS   ?= 2
# One thread a process: on networks this small more threads only wait for each other (4 to 15 times slower on busy cores).
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: help demo test lint types architecture docs bench-engine bench-bracket bench-memory bench-attacks bench-attacks-steps \
  bench-attacks-strong bench-attacks-invariance bench-attacks-affine bench-attacks-minimum \
  bench-attacks-transfer bench-verify-instances bench-verify-certified \
  bench-verify-smoothing bench-verify-compare bench-verify-crown bench-verify-spatial bench-verify-soundness bench-verify \
  bench-training bench-training-speed bench-training-n-fgsm bench-training-mnist bench-training-certified bench-training-stability bench-training-objectives bench-training-spatial bench-training-cifar fuzz nightly clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

# --- environments: each stamp is made once and again only when the pins or the package metadata change ---
$(VENV)/stamp-python:
	@for candidate in $(PYTHON) python3.11 python3.12 python3.13; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "==> making $(VENV) with $$candidate ($$("$$candidate" --version))"; \
	    "$$candidate" -m venv "$(VENV)" || { echo "$$candidate -m venv failed; on Debian or Ubuntu install python3-venv." >&2; exit 1; }; \
	    touch $@; exit 0; \
	  fi; \
	done; \
	echo "Saddlepoint needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true). Say which one: make PYTHON=/path/to/python3.11 ..." >&2; \
	exit 1

$(VENV)/stamp-run: $(VENV)/stamp-python pyproject.toml constraints.txt
	@echo "==> installing saddlepoint and what it needs into $(VENV) (versions from constraints.txt; a few minutes the first time)"
	@$(PIP) install -qq --constraint constraints.txt pip
	@$(PIP) install -qq --constraint constraints.txt hatchling editables
	@$(PIP) install -qq --constraint constraints.txt --no-build-isolation --editable .
	@touch $@

$(VENV)/stamp-test: $(VENV)/stamp-run
	@echo "==> installing the test tools"
	@$(PIP) install -qq --constraint constraints.txt --group test
	@touch $@

$(VENV)/stamp-dev: $(VENV)/stamp-test
	@echo "==> installing the lint, type and documentation tools"
	@$(PIP) install -qq --constraint constraints.txt --group dev
	@touch $@

# --- what a visitor types ---
demo: $(VENV)/stamp-run  ## the main job on embedded data; writes demo/report.html
	@echo "==> training two small networks on the digits, attacking and certifying both"
	@$(THREADS) $(BIN)/saddlepoint demo -o demo

test: $(VENV)/stamp-test  ## the test suite and every doctest
	@echo "==> running the tests on $(JOBS) processes"
	@$(THREADS) $(BIN)/python -m pytest -n $(JOBS) -m "not slow" --doctest-modules src tests

# --- what a developer types ---
lint: $(VENV)/stamp-dev  ## ruff: rules and formatting
	@echo "==> ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/stamp-dev  ## pyright over src
	@echo "==> pyright"
	@$(BIN)/pyright --pythonpath $(BIN)/python

architecture: $(VENV)/stamp-dev  ## who may import whom
	@echo "==> import contracts"
	@$(BIN)/lint-imports

docs: $(VENV)/stamp-dev  ## the documentation, warnings are errors
	@echo "==> sphinx"
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench-engine: $(VENV)/stamp-run  ## the attack engine against a bare PyTorch loop (needs ../shared/data)
	@$(BIN)/python benchmarks/engine_overhead.py

bench-bracket: $(VENV)/stamp-run  ## the bracket of a published certified network (needs ../shared/data)
	@$(BIN)/python benchmarks/bracket.py

bench-memory: $(VENV)/stamp-run  ## peak memory of a run at 1,000 and at 10,000 samples (needs ../shared/data)
	@$(BIN)/python benchmarks/memory.py

bench-training: bench-training-speed bench-training-n-fgsm bench-training-mnist bench-training-certified bench-training-stability bench-training-objectives bench-training-spatial bench-training-cifar  ## robust training; rows that exist are not made again (needs ../shared/data)

bench-training-speed: $(VENV)/stamp-run  ## an epoch of PGD training against two hand-written loops
	@$(BIN)/python benchmarks/training/speed.py

bench-training-n-fgsm: $(VENV)/stamp-run  ## N-FGSM against PGD-7, same epochs
	@$(BIN)/python benchmarks/training/speed.py --n-fgsm

bench-training-mnist: $(VENV)/stamp-run  ## what `saddlepoint train` reaches with default settings
	@$(BIN)/python benchmarks/training/mnist.py

bench-training-certified: $(VENV)/stamp-run  ## certified accuracy that `saddlepoint train --objective mtl-ibp` reaches
	@$(BIN)/python benchmarks/training/certified.py --only 0.1 --objective mtl-ibp:alpha=0.02
	@$(BIN)/python benchmarks/training/certified.py --only 0.3 --objective mtl-ibp:alpha=0.5 --more=--rate=2e-3

bench-training-stability: $(VENV)/stamp-run  ## exact verification with and without ReLU stability
	@$(BIN)/python benchmarks/training/stability.py

bench-training-objectives: $(VENV)/stamp-run  ## every objective against standard training, in its own measure
	@$(BIN)/python benchmarks/training/objectives.py

bench-training-spatial: $(VENV)/stamp-run  ## rotation and translation: three ways of training under the grid
	@$(BIN)/python benchmarks/training/spatial.py

bench-training-cifar: $(VENV)/stamp-run  ## robust accuracy against training time on CIFAR-10, 20 minutes a method
	@$(BIN)/python benchmarks/training/cifar.py

# --- attacks beside the peers: an environment of its own, rows that exist are not measured again ---
$(PEERS)/stamp: pyproject.toml constraints.txt benchmarks/peers/install.sh
	@echo "==> installing saddlepoint and the attack libraries it is compared with into $(PEERS)"
	@PYTHON=$(PYTHON) sh benchmarks/peers/install.sh "$(PEERS)"
	@touch $@

bench-attacks: bench-attacks-transfer bench-attacks-minimum
bench-attacks: bench-attacks-steps bench-attacks-strong bench-attacks-invariance bench-attacks-affine  ## all of it, about two hours

bench-attacks-steps: $(PEERS)/stamp  ## steps per second of PGD, ours and the peers'
	@$(PEERS)/bin/python benchmarks/attacks/steps.py

bench-attacks-strong: $(PEERS)/stamp  ## the plan strong against autoattack
	@$(THREADS) $(PEERS)/bin/python benchmarks/attacks/strong.py --n 1000 --seeds 0 --threads 1
	@$(THREADS) $(PEERS)/bin/python benchmarks/attacks/strong.py --n 200 --seeds 0 1 2 --threads 1

bench-attacks-invariance: $(PEERS)/stamp  ## verdicts against batch size, workers and resuming
	@$(THREADS) $(PEERS)/bin/python benchmarks/attacks/invariance.py

bench-attacks-affine: $(PEERS)/stamp  ## minimum sizes on affine models against the closed form
	@$(THREADS) $(PEERS)/bin/python benchmarks/attacks/affine.py

bench-attacks-minimum: $(PEERS)/stamp  ## minimum-size attacks against the peers' at equal budgets
	@$(THREADS) $(PEERS)/bin/python benchmarks/attacks/minimum.py

bench-attacks-transfer: $(PEERS)/stamp  ## transfer between two networks, and universal perturbations
	@$(THREADS) $(PEERS)/bin/python benchmarks/attacks/transfer.py

# --- verification: rows that exist are not measured again ---
bench-verify-instances: $(VENV)/stamp-run  ## all 279 VNN-LIB instances, one process each (needs ../shared/data; up to hours)
	@$(BIN)/python benchmarks/verify/instances.py

bench-verify-certified: $(VENV)/stamp-run  ## how many images of three robust networks are decided
	@$(BIN)/python benchmarks/verify/certified.py

bench-verify-smoothing: $(VENV)/stamp-run  ## false certificates, the radius of a linear model, certified accuracy on digits (two minutes)
	@$(THREADS) $(BIN)/python benchmarks/verify/smoothing.py

bench-verify-compare: $(VPEERS)/stamp  ## NeuralSAT and Marabou on 60 instances beside ours (an hour)
	@$(THREADS) $(VPEERS)/bin/python benchmarks/verify/compare.py

bench-verify-crown: $(VPEERS)/stamp  ## CROWN and alpha-CROWN beside auto_LiRPA (half an hour)
	@$(THREADS) $(VPEERS)/bin/python benchmarks/verify/crown.py

bench-verify-spatial: $(VENV)/stamp-run  ## rotation and translation certified over their whole box (needs ../shared/data; twenty minutes)
	@$(THREADS) $(BIN)/python benchmarks/verify/spatial.py

bench-verify-soundness: $(VENV)/stamp-run  ## does the verifier ever give a wrong answer? 12,000 networks whose answer is known (ten minutes)
	@$(THREADS) $(BIN)/saddlepoint lab soundness --full -o benchmarks/results/verify

bench-verify: bench-verify-instances bench-verify-certified bench-verify-smoothing bench-verify-compare bench-verify-crown bench-verify-spatial bench-verify-soundness

$(VPEERS)/stamp: pyproject.toml constraints.txt benchmarks/verify/peers/install.sh
	@echo "==> installing saddlepoint and the verifiers it is compared with into $(VPEERS)"
	@PYTHON=$(PYTHON) sh benchmarks/verify/peers/install.sh "$(VPEERS)"
	@touch $@

fuzz: $(VENV)/stamp-test  ## five minutes of damaged networks and properties for the readers
	@$(THREADS) $(BIN)/python -m pytest -q -m slow tests/adapters/test_fuzz_readers.py

nightly: $(VENV)/stamp-test  ## everything, the slow tests too
	@$(THREADS) $(BIN)/python -m pytest -n $(JOBS) --doctest-modules src tests

clean:  ## removes the environment and everything built
	rm -rf $(VENV) $(PEERS) $(VPEERS) docs/_build docs/api/generated demo build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
