"""Task: the log-likelihood of rows under a restricted Boltzmann machine, its samples and weights.

    log p(v) = -F(v) - log Z

with log Z by a sum over all states if a layer has at most 20 units, and always by annealed
importance sampling as well (`partition`).
"""

import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax import pictures
from aejax.data.prepare import Preparation
from aejax.data.sources.base import Source, Spec
from aejax.data.sources.splits import take
from aejax.errors import InputError, check_least
from aejax.evaluation import partition, plots
from aejax.evaluation.encoded import evenly, peak_of
from aejax.evaluation.likelihood import drawing
from aejax.evaluation.partition import Estimate
from aejax.evaluation.result import Figure, Number, Result
from aejax.evaluation.rows import stream
from aejax.models import KINDS, RBM
from aejax.models.rbm import Machine
from aejax.runs.folder import Run
from aejax.runs.loading import Model

CHAINS, TEMPERATURES = 100, 1000
_MOST_LEARNED = 10_000
_SIDE = 10
# Steps of Gibbs sampling after which a picture shows the chains.
_SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def check(run: Run, spec: Spec, chains: int = CHAINS, temperatures: int = TEMPERATURES) -> None:
    """Raises InputError where the task cannot be done."""
    model = run.config.model
    if not isinstance(model, RBM):
        raise InputError(
            f"--tasks=rbm: config.model is {KINDS.name(model)}; must be rbm, such as config=rbm"
        )
    if model.hidden != "binary":
        raise InputError("--tasks=rbm: config.model.hidden=gaussian; must be binary")
    try:
        check_least("chains", chains, 2)
        check_least("temperatures", temperatures, 1)
    except ValueError as error:
        raise InputError(f"--{error}") from None


def task(
    model: Model,
    source: Source,
    learned: Source,
    chains: int = CHAINS,
    temperatures: int = TEMPERATURES,
) -> Result:
    """Estimates log Z and log p(v) of every row, and draws samples and weights.

    Args:
        model: `rows.rescaled` to the source.
        source: rows of the model's shape.
        learned: rows of the run's training split, whose means are the start of annealing.
        chains: of annealed importance sampling, at least 2.
        temperatures: of annealed importance sampling; the paper has 14,500.

    Raises:
        InputError: the model is no restricted Boltzmann machine.
    """
    check(model.run, source.spec, chains, temperatures)
    machine = jax.device_put(model.module.machine, jax.local_devices()[0])
    seed = model.run.config.seed
    found = partition.annealed(machine, _means(model, learned), chains, temperatures, seed)
    exact = partition.exact(machine)
    energies = np.concatenate(
        [
            batch.values
            for batch in stream(model, source, _free_energy(drawing(model), seed), numbered=True)
        ]
    ).astype(np.float64)
    numbers = _numbers(energies, found, exact)
    numbers["chains"] = Number(chains, "", "draws of annealed importance sampling")
    numbers["temperatures"] = Number(temperatures, "", "of annealed importance sampling")
    notes = _notes(model, source, exact)
    if not pictures.is_image(source.spec.shape):
        notes.append(f"No pictures: rows of shape {source.spec.shape} are not images.")
        return Result(numbers, notes=notes)
    return Result(numbers, _figures(model, machine, source), notes=notes)


def _free_energy(prepare: Preparation, seed: int) -> Callable[..., jax.Array]:
    """(module, raw, mask, row indices) -> F(v) [rows]; binary values are sampled once a row."""

    def measure(module: Any, raw: jax.Array, mask: None, number: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(b"likelihood"))
        x = prepare(raw, jax.vmap(jax.random.fold_in, (None, 0))(key, number))
        return module.machine.free_energy(x.reshape(len(x), -1))

    return measure


def _means(model: Model, learned: Source) -> np.ndarray:
    """Means of training rows [visible]; for binary units with add-one smoothing."""
    rows = take(learned, evenly(len(learned), _MOST_LEARNED))
    prepare = model.preparation

    def measure(module: Any, raw: jax.Array, mask: None) -> jax.Array:
        return prepare(raw).reshape(len(raw), -1)

    count, total = len(rows), np.zeros(math.prod(rows.spec.shape))
    for batch in stream(model, rows, measure):
        total = total + batch.values.sum(axis=0, dtype=np.float64)
    return (total + 1) / (count + 2) if model.run.config.model.binary else total / count


def _numbers(energies: np.ndarray, found: Estimate, exact: float | None) -> dict[str, Number]:
    log_z, count = found.log_z if exact is None else exact, len(energies)
    error = energies.std(ddof=1) / math.sqrt(count) if count > 1 else None
    how = "log Z is estimated" if exact is None else "log Z is exact"
    nats = "nats per row"
    mean = -energies.mean()
    out = {
        "log_likelihood": Number(mean - log_z, nats, f"log p(v); {how}", main=True),
        "standard_error": Number(error, nats, "of log_likelihood, over rows"),
        "free_energy": Number(-mean, nats, "F(v)"),
        "log_z": Number(found.log_z, "nats", "log Z by annealed importance sampling", main=True),
        "log_z_error": Number(found.error, "nats", "standard error of log_z, over chains"),
        "log_z_low": Number(found.low, "nats", "log of the estimate of Z less 3 standard errors"),
        "log_z_high": Number(found.high, "nats", "log of the estimate of Z plus 3 of them"),
        "effective_chains": Number(
            found.effective, "", "(sum of weights)^2 / sum of their squares; near 1 log_z is wrong"
        ),
    }
    if exact is not None:
        out["log_z_exact"] = Number(exact, "nats", "log Z by a sum over all states", main=True)
    return out


def _notes(model: Model, source: Source, exact: float | None) -> list[str]:
    prepare, notes = model.preparation.settings, []
    if not model.run.config.model.binary:
        notes.append("A density of prepared values, which may be above 1 (log p(v) above 0).")
    elif prepare.binarise == "sampled":
        notes.append(
            "Pixels are drawn once a row from their grey values, by the run's seed and the row's"
            " number."
        )
    elif prepare.binarise == "none":
        notes.append(
            "Grey values stand in F(v) as they are: this is no log-likelihood of binary rows"
            " (config.data.prepare.binarise=sampled)."
        )
    if exact is None:
        notes.append(
            "log Z is estimated; too few temperatures give too small a Z, and so too large a"
            f" log_likelihood. --temperatures={partition.TEMPERATURES} is the published schedule."
        )
    return [*notes, f"Means over {len(source)} rows."]


def _figures(model: Model, machine: Machine, source: Source) -> list[Figure]:
    """Chains over steps, samples, and the weights of the units with the largest."""
    shape, module = source.spec.shape, model.module
    count, key = _SIDE * _SIDE, jax.random.fold_in(jax.random.key(model.run.config.seed), 1)
    first, key = jax.random.split(key)
    if module.chains is None:
        inputs = jnp.zeros((count, len(machine.visible_bias)))
        v = machine.visible_sample(inputs, jax.random.split(first, count))
        origin = "noise"
    else:
        chains = np.asarray(module.chains[...])
        v = chains[np.arange(count) % len(chains)]
        origin = "the chains of the training"

    @jax.jit
    def walk(v: jax.Array, key: jax.Array, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
        v = machine.gibbs(v, jax.random.split(key, count), steps)
        h = machine.hidden_mean(machine.hidden_input(v))
        return v, machine.visible_mean(machine.visible_input(h))

    peak, shown, before = peak_of(model, source, np.ones(1)), [], 0
    for number, step in enumerate(_SHOWN):
        v, mean = walk(v, jax.random.fold_in(key, number), np.int32(step - before))
        images = model.preparation.inverse(np.asarray(mean).reshape(count, *shape))
        shown.append(images / peak)
        before = step
    grid = shown[-1].reshape(_SIDE, _SIDE, *shape)
    rows = np.stack([images[:_SIDE] for images in shown], axis=1)
    steps = ", ".join(map(str, _SHOWN))
    norms = np.linalg.norm(machine.weight, axis=0)
    units = np.argsort(-norms, kind="stable")[:count]
    return [
        Figure(
            "rbm_samples",
            plots.grid_png(grid),
            f"Means of v in {count} chains after {_SHOWN[-1]} steps of Gibbs sampling from"
            f" {origin}.",
        ),
        Figure(
            "rbm_chains",
            plots.grid_png(rows),
            f"A chain in each row, after {steps} steps of Gibbs sampling from {origin}.",
        ),
        Figure(
            "rbm_weights",
            plots.grid_png(_weights(np.asarray(machine.weight)[:, units], shape)),
            f"Weights of {len(units)} hidden units, the largest first, each unit's over its largest"
            " one: white is above 0, black below, grey 0.",
        ),
    ]


def _weights(weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Weights [visible, units] as images [rows, columns, *shape], 0.5 for 0 and for no unit."""
    most = np.abs(weight).max(axis=0)
    images = 0.5 + 0.5 * weight.T / np.where(most > 0, most, 1)[:, None]
    columns = min(_SIDE, len(images))
    rows = -(-len(images) // columns)
    out = np.full((rows * columns, *shape), 0.5)
    out[: len(images)] = images.reshape(-1, *shape)
    return out.reshape(rows, columns, *shape)
