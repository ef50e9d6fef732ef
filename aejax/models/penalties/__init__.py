"""Penalties: terms of the loss that depend on the code."""

from aejax.models.interfaces import Penalty
from aejax.models.penalties.contractive import Contractive
from aejax.models.penalties.sparse import L1, Activity
from aejax.registry import Kinds

KINDS = Kinds(
    "aejax.penalties",
    Penalty,
    {"none": None, "contractive": Contractive, "activity": Activity, "l1": L1},
)
