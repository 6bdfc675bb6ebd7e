"""Texts given pictures."""
