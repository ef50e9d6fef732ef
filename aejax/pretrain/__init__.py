"""What is trained before a run: greedy, layer by layer; settings here, the training in run.py.

A kind gives `check(config)` (raises InputError where it does not suit the run), `stages(config)`
(the settings of each stage's own run), `unrolled(config, shape, modules)` (the run's module with
what the stages' modules have learned) and `train_stages`, which the trainer calls.
"""

from aejax.pretrain.greedy import Greedy, Stages
from aejax.registry import Kinds

KINDS = Kinds("aejax.pretrains", Stages, {"none": None, "greedy": Greedy})
