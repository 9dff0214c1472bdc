"""The adapter: the only files that import the host."""
