"""Greedy layer-wise pre-training before a run.

Settings are in greedy.py, the training is in run.py.
"""

from aejax.pretrain.greedy import Greedy

__all__ = ["Greedy"]
