"""Between encoder and decoder: what a code is, and what it costs."""

from aejax.models.bottlenecks.k_sparse import KSparse
from aejax.models.bottlenecks.plain import Plain
from aejax.models.bottlenecks.variational import Variational
from aejax.models.interfaces import Bottleneck
from aejax.registry import Kinds

KINDS = Kinds(
    "aejax.bottlenecks",
    Bottleneck,
    {"plain": Plain, "k_sparse": KSparse, "variational": Variational},
)
