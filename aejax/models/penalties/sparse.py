"""Sparsity penalties on a code: a target activity (KL), or the sum of absolute values (L1)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from aejax.models.batch import Context
from aejax.models.bottlenecks import Plain
from aejax.models.interfaces import Penalty, PenaltyInputs

# Mean activities are clipped to this distance from 0 and 1, where the divergence is infinite.
_EDGE = 1e-6


@dataclasses.dataclass
class Activity(Penalty):
    """beta sum_j KL(rho || mean activity of unit j) (Ng 2011, "Sparse autoencoder").

    KL(rho || r) = rho log(rho / r) + (1 - rho) log((1 - rho) / (1 - r)). The mean r_j is over the
    global batch: a mean over each device's rows would be another objective.

    Attributes:
        rho: the target activity of each unit.
        beta: the weight of the cost.
    """

    rho: float = 0.05
    beta: float = 3.0

    def __post_init__(self):
        if not 0 < self.rho < 1:
            raise ValueError(f"rho={self.rho}: must be between 0 and 1")
        if not self.beta >= 0:
            raise ValueError(f"beta={self.beta}: must be at least 0")

    def check(self, model: Any) -> None:
        code = model.bottleneck
        if not (isinstance(code, Plain) and code.activation == "sigmoid"):
            raise ValueError(
                "activity needs units between 0 and 1: model.bottleneck=plain with"
                " model.bottleneck.activation=sigmoid"
            )

    def __call__(self, inputs: PenaltyInputs, context: Context) -> dict[str, jax.Array]:
        rate = jnp.clip(context.mean(inputs.z), _EDGE, 1 - _EDGE)
        on = self.rho * (jnp.log(self.rho) - jnp.log(rate))
        off = (1 - self.rho) * (jnp.log1p(-self.rho) - jnp.log1p(-rate))
        return {"sparsity": self.beta * jnp.sum(on + off)}


@dataclasses.dataclass
class L1(Penalty):
    """weight sum_j |z_j|, a Laplacian prior on the code (Olshausen and Field 1996).

    Attributes:
        weight: of the cost, nats for each unit of size.
    """

    weight: float = 1e-2

    def __post_init__(self):
        if not self.weight >= 0:
            raise ValueError(f"weight={self.weight}: must be at least 0")

    def __call__(self, inputs: PenaltyInputs, context: Context) -> dict[str, jax.Array]:
        return {"sparsity": self.weight * jnp.sum(jnp.abs(inputs.z), axis=-1)}
