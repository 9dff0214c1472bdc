"""Measurements of the pack: speed and quality, each against a peer in the same run."""
