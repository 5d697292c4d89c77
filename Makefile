# make demo   install, then fine-tune, export, judge and chat on the embedded model (no GPU, no model download)
# make test   install, then run lint, types, import contracts and tests, as CI does
# make test-unsloth   run the tests that need Unsloth, in a separate environment

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready

# Files that the environment depends on. The demo needs fewer packages than the tests and is installed faster.
DEMO_READY = $(VENV)/.ready-demo
SET_UP     = deploy/set_up.py deploy/llama-cpp.cmake pyproject.toml constraints.txt

# Unsloth for training without a GPU, in addition to the packages of $(VENV). Its metadata requires torchvision, xformers,
# Triton and more, which it does not need for that.
UNSLOTH_VENV  ?= .venv-unsloth
UNSLOTH_READY  = $(UNSLOTH_VENV)/.ready
UNSLOTH        = unsloth==2026.10.9 unsloth_zoo==2026.10.9

# Many containers set this. Then every program would compile all its imports again, which takes ten seconds.
unexport PYTHONDONTWRITEBYTECODE

CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgetune needs Python 3.11 or newer")'

.PHONY: demo test lint types contracts tests test-unsloth format clean

demo: $(DEMO_READY)
	$(BIN)/edgetune demo --out demo --force

# Types are checked in parallel with the tests, which sometimes leave a core idle.
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
