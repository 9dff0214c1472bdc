# Both commands set up all they need on a machine with Python 3.11, and reuse what is there.
.PHONY: setup test demo

setup:
	@bash .ci/setup.sh

test: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --cache-dir .venv/.mypy_cache
	.venv/bin/pytest tests

demo: setup
	@.venv/bin/python benchmarks/demo.py
