# Each command sets up all it needs on a machine with Python 3.11, and reuses what is there.
.PHONY: setup test demo quality
VENV := $(shell bash .ci/venv.sh)

setup:
	@bash .ci/setup.sh

test: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --cache-dir $(VENV)/.mypy_cache
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest tests -n 2 --dist loadscope --no-loadscope-reorder --durations=15

demo: setup
	@$(VENV)/bin/python benchmarks/demo.py

# How good an identity is, on the toy world, against the committed result: a person on each of two cores.
GUARD = $(VENV)/bin/python -m benchmarks.quality --quick --results $(VENV)/quality
quality: setup
	@$(GUARD) --shard 1/2 & $(GUARD) --shard 0/2; wait
	@$(GUARD) --floor benchmarks/results/quick-s4.json
