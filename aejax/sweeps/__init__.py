"""Families of runs: one for each combination of some settings' values, and what came out."""
