"""Bytes to values and back; one outside party per file."""
