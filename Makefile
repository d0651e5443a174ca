# `make demo` and `make test` need nothing prepared: each sets up what it needs first.
PYTHON ?= python3
# Tests at a time
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.set-up

.PHONY: help demo viewer test unit soak gpu-check lint types train servers lock clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(SETUP): requirements.lock pyproject.toml
	@echo "Setting up the virtual environment (a few minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch without a hash: each platform and package index has its own build of the same release
	@$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet --no-deps torch==2.13.0
	@$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/pip check
	@touch $@

demo: $(SETUP) ## set up, run a node on a synthetic study, show what came back
	@$(BIN)/python -m sample_data.demo

viewer: $(SETUP) ## get OHIF with npm if need be, show the demo's last result in a browser
	@mkdir -p .demo/home/viewer
	@ls .demo/home/viewer/ohif-app-*.tgz >/dev/null 2>&1 || npm pack --silent @ohif/app@3.12.10 --pack-destination .demo/home/viewer
	@$(BIN)/dicomnode --home .demo/home preview

servers: ## Orthanc, dcmtk, dicom3tools, nginx and PostgreSQL from Debian, for the tests
	@bash tests/install_servers.sh

test: $(SETUP) servers lint types ## set up and run the tests
	@# hundreds of processes import this: none should compile it again, as each does where PYTHONDONTWRITEBYTECODE is set
	@$(BIN)/python -m compileall -q dicomnode
	@# a file's tests share servers, so they stay together; in the order of the folders, for the short files come last
	@$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

unit: $(SETUP) ## the quick tests alone
	@$(BIN)/python -m pytest tests/unit tests/contract

soak: $(SETUP) servers ## the slow runs: kill -9, power loss, long queues
	@$(BIN)/python -m pytest -m slow

gpu-check: ## on a machine with a GPU: all that the other tests cannot try (docs/gpu.md)
	@bash tests/gpu_check.sh $(BIN)

lint: $(SETUP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(SETUP)
	@$(BIN)/mypy

train: $(SETUP) ## train the sample model again (about an hour on two cores)
	@$(BIN)/python -m sample_data.train

lock: ## pin what the virtual environment holds now
	@$(BIN)/pip freeze --all | grep -viE '^(torch==|pip==|uv==|-e |dicomnode)' > $(VENV)/frozen.txt
	@uv pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate --python-version 3.11 \
		$(VENV)/frozen.txt -o requirements.lock
	@# the embedded Triton is there for one platform; elsewhere models run in-process
	@sed -i "s/^\(nvidia-pytriton==[^ ]*\) /\1 ; sys_platform == 'linux' and platform_machine == 'x86_64' /" requirements.lock

clean: ## the demo's node and output
	@rm -rf .demo demo-output
