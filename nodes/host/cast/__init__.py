"""Many people at once: their folder, their batches, their files."""
