"""What is trained before a run: greedy, layer by layer; settings here, the training in run.py.

A kind gives `check(config)` (why it does not suit the run, or None), `stages(config)` (the settings
of each stage's own run) and `unrolled(config, shape, modules)` (the run's module with what the
stages' modules have learned).
"""

from aejax.pretrain.greedy import Greedy

KINDS = {"none": None, "greedy": Greedy}
