.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
LOCK := components/requirements.lock
# uv does not read pip's configuration: hand on the folder of wheels where pip has one.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

.venv/.installed: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11, 4) <= sys.version_info < (3, 12) else "genreflow needs Python 3.11, from 3.11.4 on; this is " + sys.version.split()[0] + ". Name one: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.8
	# compiled once, here: a run starts ten processes, and not every machine lets Python keep bytecode
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r $(LOCK)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

setup: .venv/.installed ## install the locked environment into .venv

run: setup ## the whole pipeline on the built-in synthetic corpus
	$(BIN)/genreflow run

# two workers on two processors: PyTorch's own threads would only be in each other's way
test: setup ## every test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not bench and not containers"

bench: setup ## the measurements, and fuzzing for an hour (long)
	$(BIN)/pytest -s -m bench tests/benchmarks
	GENREFLOW_FUZZ_SECONDS=600 $(BIN)/pytest -s tests/test_fuzzing.py

images: setup ## build the three images: ENGINE=docker|podman|buildah BASE=image@sha256:… TORCH_BACKEND=cpu|cu130
	PYTHON=$(CURDIR)/$(BIN)/python infra/images/build.sh

test-containers: setup ## build the images with buildah and run them: root, buildah, debootstrap, podman, runc (long)
	PYTHON=$(CURDIR)/$(BIN)/python ENGINE=buildah TORCH_BACKEND="$${TORCH_BACKEND-cpu}" infra/images/build.sh
	$(BIN)/pytest -s -n 0 -m containers tests/containers

lint: setup ## ruff, mypy, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

settings: setup ## write docs/settings.md from the settings' types
	$(BIN)/python -m pipelines.reference > docs/settings.md

# uv keeps the versions that the lock has, and torch==2.13.0 is to it the CUDA build with its nvidia-* packages. So that
# line goes first; uv then takes the CPU wheel where there is one and writes torch==2.13.0+cpu, which no plain index
# has: the +cpu goes again.
lock: setup ## resolve pyproject.toml anew into components/requirements.lock
	sed -i '/^torch==/d' $(LOCK)
	$(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 --no-header --no-annotate --quiet -o $(LOCK)
	sed -i 's/^torch==\([0-9.]*\)+cpu/torch==\1/' $(LOCK)

.PHONY: help setup run test test-containers images bench lint format settings lock
