"""Blocks that several parts use, each in the form that is fast on the backend."""
