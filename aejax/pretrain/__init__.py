"""What is trained before a run: greedy, layer by layer.

The settings stand in greedy.py, the training in run.py.
"""

from aejax.pretrain.greedy import Greedy

__all__ = ["Greedy"]
