"""Terms that are added to the loss because of the code: `penalty(encode, x, z, context)`.

`encode` maps x [rows, *shape] to z [rows, latent]; `z` is the code of x [rows, latent]. A penalty
gives named terms, each [rows] or []; terms that couple examples take their means through
`context.mean`. Its `check(model)` says why it does not suit a model's settings, or None.
"""

from aejax.models.penalties.contractive import Contractive
from aejax.models.penalties.sparse import L1, Activity

KINDS = {"none": None, "contractive": Contractive, "activity": Activity, "l1": L1}
