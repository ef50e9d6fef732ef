"""Random codes for the decoder: from a prior, or from a Gaussian mixture that is fitted to codes.

Ghosh et al. (2020, "From Variational to Deterministic Autoencoders") propose to fit a density to
codes after training, for codes without a prior.
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
# Largest code for a mixture with full covariances: a step's time grows with the size's square.
MOST_NUMBERS = 256
MOST_ROWS = 20_000
_STEPS = 100
# The fit stops when a step gains less than this, in nats a row.
_TOLERANCE = 0.01
# Added to the components' variances, as a share of the codes' mean variance.
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
    """Codes from the prior (`samples`) and from the mixture (`samples_mixture`), and notes.

    Args:
        model: its run's seed is used.
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
    """Codes from the model's own prior; None if it has none."""
    settings = model.run.config.model
    z = model.prior(count, model.run.config.seed)
    if z is None:
        return None
    normal = ", a standard normal" if settings.has_posterior else ""
    return Drawn(z.astype(np.float64).reshape(count, -1), f"the prior{normal}")


def from_mixture(model: Model, z: np.ndarray, components: int, count: int) -> tuple[Drawn, bool]:
    """Codes of a Gaussian mixture that is fitted to codes of rows, and whether it converged.

    Each number is clipped to its range in these codes, so that a unit that is never active stays
    inactive. With a k-sparse bottleneck only the k largest numbers of each draw are kept.

    Args:
        model: its run's seed is used for the fit and the draws.
        z: codes [rows, numbers]; if there are more than 20,000, so many evenly spaced ones.
        components: of the mixture, at most as many as rows.
        count: how many codes to draw.
    """
    bottleneck, seed = model.run.config.model.bottleneck, model.run.config.seed
    z = z[evenly(len(z), MOST_ROWS)]
    fitted = fit(z, components, seed)
    drawn = np.clip(fitted.sample(count)[0], z.min(axis=0), z.max(axis=0))
    # Samples are ordered by component.
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
    # More threads are slower for matrices of this size, and results depend on their number.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(z)
