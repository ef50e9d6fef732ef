"""Task: the log-likelihood of rows under a variational model, by importance sampling.

    log p(x) ~ log 1/K sum_k w_k,   w_k = p(x given z_k) p(z_k) / q(z_k given x),   z_k ~ q

(Kingma and Welling 2014, appendix D; Burda et al. 2016, equation 8). The estimate's expectation is
a lower bound of log p(x), and converges to it with K (theorem 1 there).
"""

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.data.prepare import Preparation
from aejax.data.sources.base import Source, Spec
from aejax.errors import InputError
from aejax.evaluation.result import Number, Result
from aejax.evaluation.rows import batch_rows, stream
from aejax.models import Autoencoder
from aejax.models.batch import spread
from aejax.models.interfaces import Posterior
from aejax.models.likelihood import Bernoulli
from aejax.runs.folder import Run
from aejax.runs.loading import Model

SAMPLES = 5000
# A unit is active if its mean's variance over rows is above this (Burda et al. 2016, section 5.2).
_ACTIVE = 0.01
# Samples are drawn in blocks; the decoder's outputs for a block have so many numbers (16 MiB).
_NUMBERS_AT_A_TIME = 2**22


class _Sums(NamedTuple):
    """Running sums over samples of each row, [rows]; weights are relative to the largest so far.

    Attributes:
        largest: log weight.
        weight: sum of exp(log weight - largest).
        square: sum of exp(2 (log weight - largest)).
        log_p: sum of log p(x given z).
    """

    largest: jax.Array
    weight: jax.Array
    square: jax.Array
    log_p: jax.Array


def check(run: Run, spec: Spec) -> None:
    """Raises InputError where the task cannot be done."""
    settings = run.config.model
    if not settings.has_posterior:
        code = type(settings.bottleneck or settings).__name__
        raise InputError(
            f"--tasks=likelihood: the model's code is {code}; must be variational, such as"
            " config=variational or config.model.bottleneck=variational; a model=rbm has"
            " --tasks=rbm"
        )


def task(model: Model, source: Source, samples: int = SAMPLES) -> Result:
    """Estimates log p(x) of every row with K = `samples`, and the evidence lower bound.

    Draws depend only on the run's seed, the row's index in the split and the sample's index, so
    that results are the same on any devices.

    Args:
        model: `rows.rescaled` to the source.
        source: rows of the model's shape.
        samples: codes drawn for each row, at least 1.

    Raises:
        InputError: the model's code has no posterior.
    """
    check(model.run, source.spec)
    settings = model.run.config.model
    batches = [
        batch.values for batch in stream(model, source, measure(model, source, samples), True)
    ]
    values = {name: np.concatenate([p[name] for p in batches]) for name in batches[0]}
    return Result(_numbers(values, samples), notes=_notes(model, settings, len(source)))


def measure(model: Model, source: Source, samples: int) -> Callable[..., dict[str, jax.Array]]:
    """(module, raw, mask, row numbers) -> {name: [rows, ...]}."""
    prepare, seed = drawing(model), model.run.config.seed
    each = batch_rows(source) * math.prod(source.spec.shape)
    block = max(1, min(samples, _NUMBERS_AT_A_TIME // each))
    blocks = -(-samples // block)

    def measure(
        module: Any, raw: jax.Array, mask: jax.Array | None, number: jax.Array
    ) -> dict[str, jax.Array]:
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(b"likelihood"))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, number)
        x = prepare(raw, keys)
        features = module.encoder(x, None, mask).astype(jnp.float32)
        posterior = module.bottleneck.posterior(features)

        def add(i: jax.Array, sums: _Sums) -> _Sums:
            sample = i * block + jnp.arange(block)
            z, log_prior_over_q = _draw(keys, sample, posterior)
            log_p = _log_p(module, z, x, mask)
            real = (sample < samples)[:, None]
            return _added(sums, log_p, jnp.where(real, log_p + log_prior_over_q, -jnp.inf), real)

        zeros = jnp.zeros(len(x))
        start = _Sums(zeros - jnp.inf, zeros, zeros, zeros)
        sums = jax.lax.fori_loop(0, blocks, add, start)
        kl = posterior.divergence()
        return {
            "log_likelihood": sums.largest + jnp.log(sums.weight / samples),
            "log_p": sums.log_p / samples,
            "kl": jnp.sum(kl.reshape(len(kl), -1), axis=1),
            "effective": jnp.square(sums.weight) / sums.square,
            "mean": posterior.mean.reshape(len(x), -1),
        }

    return measure


def drawing(model: Model) -> Preparation:
    """The run's preparation without augmentation; with keys it samples binary values if so set."""
    settings = dataclasses.replace(model.preparation.settings, shift=0, flip=False)
    return dataclasses.replace(model.preparation, settings=settings)


def _draw(keys: jax.Array, sample: jax.Array, posterior: Posterior) -> tuple[jax.Array, jax.Array]:
    """z [samples, rows, *code] from q, and log p(z) - log q(z given x) [samples, rows]."""
    mean, log_variance = posterior

    def noise(key: jax.Array, number: jax.Array) -> jax.Array:
        # From 1000 on: `Preparation` folds in small numbers.
        return jax.random.normal(jax.random.fold_in(key, 1000 + number), mean.shape[1:])

    # vmap over rows, each with its key, then over samples as the leading axis.
    drawn = jax.vmap(jax.vmap(noise, (None, 0)), (0, None), out_axes=1)(keys, sample)
    z = mean + jnp.exp(0.5 * log_variance) * drawn
    terms = 0.5 * (jnp.square(drawn) + log_variance - jnp.square(z))
    return z, jnp.sum(terms.reshape(*terms.shape[:2], -1), axis=-1)


def _log_p(module: Any, z: jax.Array, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """log p(x given z): z [samples, rows, ...], x [rows, ...] -> [samples, rows], nats."""
    parameters = module.decoder(z, x, mask).astype(jnp.float32)
    # Flat rows: XLA on a CPU does not vectorise over a last axis of one channel.
    flat = parameters.reshape(*z.shape[:2], -1, parameters.shape[-1])
    each = module.settings.likelihood.log_prob(flat, x.reshape(len(x), -1))
    if mask is not None:
        each = each * jnp.broadcast_to(spread(mask, x.ndim), x.shape).reshape(len(x), -1)
    return jnp.sum(each, axis=-1)


def _added(sums: _Sums, log_p: jax.Array, log_weight: jax.Array, real: jax.Array) -> _Sums:
    """Adds a block of samples [samples, rows] to the sums, except those that are not real."""
    largest = jnp.maximum(sums.largest, jnp.max(log_weight, axis=0))
    before, weight = jnp.exp(sums.largest - largest), jnp.exp(log_weight - largest)
    return _Sums(
        largest,
        sums.weight * before + jnp.sum(weight, axis=0),
        sums.square * jnp.square(before) + jnp.sum(jnp.square(weight), axis=0),
        sums.log_p + jnp.sum(jnp.where(real, log_p, 0.0), axis=0),
    )


def _numbers(values: dict[str, np.ndarray], samples: int) -> dict[str, Number]:
    rows = {name: value.astype(np.float64) for name, value in values.items()}
    log_likelihood = rows["log_likelihood"]
    error = (
        log_likelihood.std(ddof=1) / math.sqrt(len(log_likelihood)) if len(rows["kl"]) > 1 else None
    )
    elbo = rows["log_p"] - rows["kl"]
    active = int((rows["mean"].var(axis=0) > _ACTIVE).sum())
    nats = "nats per row"
    return {
        "log_likelihood": Number(
            log_likelihood.mean(), nats, f"log p(x), {samples} importance samples a row", main=True
        ),
        "standard_error": Number(error, nats, "of log_likelihood, over rows"),
        "elbo": Number(elbo.mean(), nats, "evidence lower bound: one sample's bound", main=True),
        "nll": Number(-rows["log_p"].mean(), nats, "-log p(x given z), in the mean over z"),
        "kl": Number(rows["kl"].mean(), nats, "divergence of q(z given x) from the prior"),
        "active_units": Number(
            active, "units", f"whose mean varies by more than {_ACTIVE} over rows", main=True
        ),
        "samples": Number(samples, "", "codes drawn for each row"),
        "effective_samples": Number(
            float(np.median(rows["effective"])),
            "",
            "(sum of weights)^2 / sum of their squares, median over rows; near 1 the estimate is"
            " too low",
        ),
    }


def _notes(model: Model, settings: Autoencoder, rows: int) -> list[str]:
    prepare = model.preparation.settings
    if prepare.binarise == "sampled":
        how = (
            "Pixels are drawn once a row from their grey values, by the run's seed and the row's"
            " number, as Burda et al. (2016) binarise test images."
        )
    elif prepare.binarise == "threshold":
        how = "Pixels are 1 above one half, else 0."
    elif isinstance(settings.likelihood, Bernoulli):
        how = (
            "Grey values are read as probabilities: this is a cross-entropy, no log-likelihood of"
            " binary rows, and not comparable with published ones"
            " (config.data.prepare.binarise=sampled)."
        )
    else:
        how = "A density of prepared values, which may be above 1 (log p(x) above 0)."
    return [how, f"Means over {rows} rows."]
