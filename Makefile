# Each command sets up all it needs on a machine with Python 3.11, and reuses what is there.
.PHONY: setup test demo quality

setup:
	@bash .ci/setup.sh

test: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --cache-dir .venv/.mypy_cache
	OMP_NUM_THREADS=1 .venv/bin/pytest tests -n 2 --dist loadgroup --durations=15

demo: setup
	@.venv/bin/python benchmarks/demo.py

# How good an identity is, on the toy world, against the committed result: five minutes on one core.
quality: setup
	@.venv/bin/python -m benchmarks.quality --quick --scale 1 --results .venv/quality \
		--floor benchmarks/results/quick.json
