"""Attention maps of a sampling."""
