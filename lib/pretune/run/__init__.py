"""Doing the work: what waits, what is ready, and one cell at a time."""
