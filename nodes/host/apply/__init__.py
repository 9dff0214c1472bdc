"""Sampling with identities."""
