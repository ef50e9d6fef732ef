"""Terms that are added to the loss because of the code: `penalty(encode, x, z, context)`.

`encode` maps x [rows, *shape] to z [rows, latent]; `z` is the code of x [rows, latent]. A penalty
gives named terms, each [rows] or []; terms that couple examples take their means through
`context.mean`.
"""

KINDS = {"none": None}
