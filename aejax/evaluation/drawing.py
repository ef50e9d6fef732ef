"""Codes for the decoder: of a prior, and of a mixture of normals that is fitted to codes.

To fit a density to codes after the training is what Ghosh et al. (2020, "From Variational to
Deterministic Autoencoders") propose for codes without a prior.
"""

import dataclasses
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np

from aejax.evaluation.encoded import evenly
from aejax.models.bottlenecks import KSparse
from aejax.runs.loading import Model

COMPONENTS = 10
# Of a code, for full covariances: a step of the fit grows with their square.
MOST_NUMBERS = 256
MOST_ROWS = 20_000
_STEPS = 100
# Nats a row; a step of the fit that gains less is the last.
_TOLERANCE = 0.01
# Added to each variance of a component, as a share of the codes' mean variance.
_FLOOR = 1e-4


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Codes and where they come from.

    Attributes:
        z: [rows, numbers].
        origin: what they are drawn from, in words.
    """

    z: np.ndarray
    origin: str


def draw(
    model: Model, z: np.ndarray, components: int, count: int
) -> tuple[dict[str, Drawn], list[str]]:
    """Codes by their source, samples (the prior's) and samples_mixture, and what must be known.

    Args:
        model: whose seed draws.
        z: codes of training rows [rows, numbers].
        components: of the mixture, at most as many as rows.
        count: how many codes of each source.
    """
    out, notes, numbers = {}, [], z.shape[1]
    prior = from_prior(model, count)
    if prior is not None:
        out["samples"] = prior
    if numbers > MOST_NUMBERS:
        notes.append(
            f"No mixture of normals: a code has {numbers} numbers, more than {MOST_NUMBERS}."
        )
        return out, notes
    out["samples_mixture"], converged = from_mixture(model, z, components, count)
    if prior is None:
        notes.append(
            "This code has no prior: its samples are drawn from"
            f" {out['samples_mixture'].origin}, which the model was not trained for."
        )
    if not converged:
        notes.append(f"The mixture has not converged after {_STEPS} steps.")
    return out, notes


def from_prior(model: Model, count: int) -> Drawn | None:
    """Codes of the model's own prior; None where it has none."""
    settings = model.run.config.model
    z = model.prior(count, model.run.config.seed)
    if z is None:
        return None
    normal = ", a standard normal" if settings.has_posterior else ""
    return Drawn(z.astype(np.float64).reshape(count, -1), f"the prior{normal}")


def from_mixture(model: Model, z: np.ndarray, components: int, count: int) -> tuple[Drawn, bool]:
    """Codes of a Gaussian mixture that is fitted to codes of rows, and whether it converged.

    Each number is cut to the range that it has in these codes, so that a unit that is never active
    stays so. Of a k-sparse code the k largest numbers stay, as the bottleneck has it.

    Args:
        model: whose seed starts the fit and draws.
        z: codes [rows, numbers]; of more than 20,000, that many, evenly taken.
        components: of the mixture, at most as many as rows.
        count: how many codes to draw.
    """
    bottleneck, seed = model.run.config.model.bottleneck, model.run.config.seed
    z = z[evenly(len(z), MOST_ROWS)]
    fitted = fit(z, components, seed)
    drawn = np.clip(fitted.sample(count)[0], z.min(axis=0), z.max(axis=0))
    # They come one component after the other.
    drawn = np.random.RandomState(seed).permutation(drawn)
    origin = f"a mixture of {components} normal distributions fitted to {len(z)} training codes"
    if isinstance(bottleneck, KSparse):
        drawn = np.asarray(bottleneck.encode(jnp.asarray(drawn, jnp.float32)), np.float64)
        kept = round(bottleneck.test_scale * bottleneck.k)
        origin += f" (the {kept} largest numbers of each draw stay, the others become 0)"
    return Drawn(drawn, origin), fitted.converged_


def fit(z: np.ndarray, components: int, seed: int) -> Any:
    """scikit-learn's GaussianMixture with full covariances, fitted to codes [rows, numbers]."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    floor = _FLOOR * float(z.var(axis=0).mean()) or 1e-12
    steps = {"max_iter": _STEPS, "tol": _TOLERANCE}
    mixture = GaussianMixture(components, reg_covar=floor, random_state=seed, **steps)
    # Threads cost more than they give on matrices of this size, and sums depend on their number.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(z)
