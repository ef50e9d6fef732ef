"""The contractive autoencoder (Rifai et al. 2011): codes that change little when x does.

The loss of a row is -log p(x given z) + weight ||J||_F^2, where J = dz / dx is the Jacobian of the
encoder at x and ||J||_F^2 the sum of its squares. For one sigmoid layer z = s(W x + b)

    J_ij = z_i (1 - z_i) W_ij,   ||J||_F^2 = sum_i (z_i (1 - z_i))^2 sum_j W_ij^2

(equation 6 there), which costs no more than the forward pass. For any other encoder J is computed
column by column, or estimated: E ||J v||^2 = ||J||_F^2 for v of independent random signs
(Hutchinson 1990). With a transformer on a GPU it needs float32, since the 16-bit kernel of
attention has no second derivative.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from aejax.models.batch import Context
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense, Transformer
from aejax.models.interfaces import Coder, Penalty, PenaltyInputs

METHODS = ("auto", "closed", "exact", "estimate")


@dataclasses.dataclass
class Contractive(Penalty):
    """weight ||dz / dx||_F^2, the squared Frobenius norm of the encoder's Jacobian.

    Attributes:
        weight: of the cost (the paper's lambda).
        method: closed (one sigmoid layer alone); exact (a pass through the encoder for each unit
            of the code or element of x, whichever are fewer); estimate (`probes` passes); auto:
            closed where it can be, else exact.
        probes: random directions a row, for the estimate.
    """

    weight: float = 0.1
    method: str = "auto"
    probes: int = 1

    def __post_init__(self):
        if not self.weight >= 0:
            raise ValueError(f"weight={self.weight}: must be at least 0")
        if self.method not in METHODS:
            raise ValueError(f"method={self.method}: must be one of {', '.join(METHODS)}")
        if self.probes < 1:
            raise ValueError(f"probes={self.probes}: must be at least 1")

    def check(self, model: Any) -> None:
        if model.symbols:
            raise ValueError("contractive needs numbers: codes have no derivative by symbols")
        if self.method == "closed" and not _is_one_sigmoid_layer(model):
            raise ValueError(
                "contractive.method=closed needs one sigmoid layer: model.coder=dense with"
                " model.coder.hidden=(), model.bottleneck=plain with activation=sigmoid; or"
                " method=exact"
            )

    def check_platform(self, platform: str, compute: str, coder: Coder) -> None:
        if platform == "gpu" and compute == "bfloat16" and isinstance(coder, Transformer):
            raise ValueError(
                "config.compute=bfloat16 with model.coder=transformer and"
                " model.penalty=contractive: on a GPU attention has no second derivative in"
                " bfloat16; must be float32"
            )

    def __call__(self, inputs: PenaltyInputs, context: Context) -> dict[str, jax.Array]:
        x, encode, settings = inputs.x, inputs.encode, inputs.module.settings
        if self.method == "estimate":
            norm = _estimate(encode, x, self._keys(x, context), self.probes)
        elif self.method == "exact" or not _is_one_sigmoid_layer(settings):
            norm = _exact(encode, x)
        else:
            # Clean rows are already encoded. A second pass would need products of its own in the
            # backward pass: a step of the preset then takes 1.2 times as long.
            z = inputs.z if settings.corruption is None else encode(x)
            norm = _closed(inputs.module, z)
        return {"contraction": self.weight * norm}

    @staticmethod
    def _keys(x: jax.Array, context: Context) -> jax.Array:
        if context.training:
            return context.draw("contractive")
        return jax.random.split(jax.random.key(0), len(x))  # always the same directions


def _is_one_sigmoid_layer(model: Any) -> bool:
    coder, code = model.coder, model.bottleneck
    return (
        isinstance(coder, Dense)
        and not coder.hidden
        and isinstance(code, Plain)
        and code.activation == "sigmoid"
    )


def _closed(module: Any, z: jax.Array) -> jax.Array:
    """||J||_F^2 of each row of one sigmoid layer from its codes z: [rows]."""
    (layer,) = module.encoder.layers
    slope = z * (1 - z)
    return jnp.square(slope) @ jnp.sum(jnp.square(layer.weight[...]), axis=1)


def _exact(encode: Callable, x: jax.Array) -> jax.Array:
    """||J||_F^2 of each row: [rows], by one derivative for each unit of z or element of x."""
    elements = math.prod(x.shape[1:])
    units = jax.eval_shape(encode, x).shape[-1]
    if units <= elements:
        _, pull = jax.vjp(encode, x)

        def gradient(unit: jax.Array) -> jax.Array:
            seed = jnp.broadcast_to(jax.nn.one_hot(unit, units), (len(x), units))
            return _squares(pull(seed)[0])

        return jnp.sum(jax.lax.map(gradient, jnp.arange(units)), axis=0)

    def column(element: jax.Array) -> jax.Array:
        towards = jax.nn.one_hot(element, elements).reshape(x.shape[1:])
        tangent = jnp.broadcast_to(towards, x.shape)
        return _squares(jax.jvp(encode, (x,), (tangent,))[1])

    return jnp.sum(jax.lax.map(column, jnp.arange(elements)), axis=0)


def _estimate(encode: Callable, x: jax.Array, keys: jax.Array, probes: int) -> jax.Array:
    """The mean of ||J v||^2 over `probes` random signs v: [rows]."""
    shape = (probes, *x.shape[1:])
    draw = jax.vmap(lambda key: jax.random.rademacher(key, shape, x.dtype), out_axes=1)
    directions = draw(keys)
    norms = [_squares(jax.jvp(encode, (x,), (directions[k],))[1]) for k in range(probes)]
    return jnp.mean(jnp.stack(norms), axis=0)


def _squares(values: jax.Array) -> jax.Array:
    """Sum of squares of each row: [rows, ...] -> [rows]."""
    return jnp.sum(jnp.square(values.reshape(len(values), -1)), axis=-1)
