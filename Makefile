# make demo   set everything up, then fine-tune, export, chat and judge on the embedded model (no GPU, no network)
# make test   set everything up, then lint, types, import contracts and tests: what CI runs
# make test-unsloth   the tests that need the real Unsloth, which gets an environment of its own

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready

# What the environment is made from. The demo needs less than the tests, and is set up quicker.
DEMO_READY = $(VENV)/.ready-demo
SET_UP     = deploy/set_up.py deploy/llama-cpp.cmake pyproject.toml constraints.txt

# Unsloth for training without a GPU, over what $(VENV) holds. Its metadata asks for torchvision, xformers, Triton and
# more, none of which it needs for that.
UNSLOTH_VENV  ?= .venv-unsloth
UNSLOTH_READY  = $(UNSLOTH_VENV)/.ready
UNSLOTH        = unsloth==2026.10.9 unsloth_zoo==2026.10.9

# Set in many containers. Every program that is started here would then compile all that it imports anew, for ten seconds.
unexport PYTHONDONTWRITEBYTECODE

CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgetune needs Python 3.11 or newer")'

.PHONY: demo test lint types contracts tests test-unsloth format clean

demo: $(DEMO_READY)
	$(BIN)/edgetune demo --out demo --force

# Types are checked beside the tests, which leave a core idle now and then.
test: lint contracts
	@$(MAKE) --no-print-directory -j 2 types tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports

# One worker per core with one thread each: many small tests run side by side.
tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder

test-unsloth: $(UNSLOTH_READY)
	$(UNSLOTH_VENV)/bin/python -m pytest tests/real_unsloth

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(DEMO_READY): $(SET_UP)
	@$(CHECK_PYTHON)
	@$(PYTHON) deploy/set_up.py $(VENV) demo
	@touch $@

$(READY): $(SET_UP)
	@$(CHECK_PYTHON)
	@$(PYTHON) deploy/set_up.py $(VENV) test
	@touch $@ $(DEMO_READY)

$(UNSLOTH_READY): $(READY)
	test -x $(UNSLOTH_VENV)/bin/python || $(PYTHON) -m venv $(UNSLOTH_VENV)
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > \
		"$$($(UNSLOTH_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/edgetune.pth"
	$(UNSLOTH_VENV)/bin/python -m pip install --quiet --no-deps $(UNSLOTH)
	touch $@

clean:
	rm -rf $(VENV) $(UNSLOTH_VENV) demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
