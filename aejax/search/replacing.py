"""Replacement: the parent and the library of blocks are trained, and a front is tuned and measured.

    WORKDIR/parent/         a run: the parent
    WORKDIR/library/        a run: candidates imitate the parent's blocks
                                                       scores.json      what replacements cost
    WORKDIR/front/LAYOUT/   runs: layouts of rising price, grafted and tuned
                                                       replacement.json the scores and the front

Processes that share the search train the front's layouts together; what they are follows from
scores.json, which one of them writes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.errors import InputError
from aejax.models.batch import Batch
from aejax.nn.layout import ATTENTION
from aejax.runs import checkpoint, loading
from aejax.search import choosing, imitation
from aejax.search import space as spaces
from aejax.search.choosing import Judge
from aejax.search.imitation import Imitation
from aejax.search.job import SearchFolder
from aejax.training.state import split

# Rows by which blocks' outputs are compared with their inputs.
_SIMILAR = 256


@dataclasses.dataclass(frozen=True)
class Learned:
    """What the parent and the library have learned.

    Attributes:
        parent: the parent's module.
        module: the library's, with the parent's own parameters around the candidates.
        library: its parameters by name.
        judge: gives the losses of layouts of these blocks.
    """

    parent: Any
    module: Any
    library: dict[str, np.ndarray]
    judge: Judge


def replacement(job: SearchFolder, prices: dict[str, float]) -> dict[str, Any]:
    """Scores all replacements, tunes a front of layouts, and says which is the cheapest that holds.

    Args:
        job: the search.
        prices: of each letter.

    Raises:
        InputError: the parent has learned too little.
    """
    settings, space, parent = job.settings, job.settings.space(), job.settings.parent()
    learned = functools.cache(lambda: _learned(job))
    scored = job.load_or_compute("scores.json", lambda: _scored(job, learned))
    scores, chosen = [np.array(each) for each in scored["scores"]], space.choices(parent)
    each = [np.array([prices[letter] for letter in letters]) for _, _, letters in space.searched]
    tried = [choosing.cheapest(scores, each, budget) for budget in choosing.budgets(each, chosen)]
    # The parent too: what the layouts are held against has as many steps more as they have.
    some = dict.fromkeys(tuple(one) for one in (*tried, chosen) if one)
    front = job.shared_map(
        functools.partial(_tuned, job, learned(), scores, each),
        [list(one) for one in some],
        lambda choices: f"front/{space.layout(choices)}".replace("|", "-"),
        settings.replacement.tuning,
    )
    reference = next(one for one in front if one["choices"] == chosen)
    best = next(one for one in front if one["loss"] <= reference["loss"] + settings.margin)
    count = spaces.read(best["layout"]).count(ATTENTION)
    similar = np.asarray(scored["similarities"])
    return {
        "parent_loss": reference["loss"],
        "similarities": scored["similarities"],
        "cosine": str(choosing.least_similar(space, parent, similar, count)),
        "scores": scored["scores"],
        "layout": best["layout"],
        "front": front,
    }


def _imitation(job: SearchFolder) -> Imitation:
    """The model whose candidates imitate the parent's blocks."""
    return Imitation(job.settings.run.model, job.settings.space(), job.settings.parent())


def _learned(job: SearchFolder) -> Learned:
    """Loads the parent and the library."""
    parent = loading.load(job.path("parent"), say=job.say).module
    module = loading.load(job.path("library"), say=job.say, model=_imitation(job)).module
    # What stands around the blocks is the parent's own.
    library = _parameters_of(module) | _inserted(job, parent)
    module = _with_parameters(module, library)
    judge = Judge(module.model, job.settings.space(), job.rows)
    return Learned(parent, module, library, judge)


def _inserted(job: SearchFolder, parent: Any) -> dict[str, np.ndarray]:
    """The parent's parameters by their names in the library."""
    settings = job.settings
    return imitation.insert_params(_parameters_of(parent), settings.space(), settings.parent())


def _scored(job: SearchFolder, learned: Callable[[], Learned]) -> dict[str, Any]:
    """Trains the parent and the library, and scores every candidate in every slot."""
    settings, parent = job.settings, job.settings.parent()
    base = spaces.with_layout(settings.run.model, parent)
    job.train("parent", job.config(base, settings.run.duration))
    given = _inserted(job, loading.load(job.path("parent"), say=job.say).module)
    job.say("library: candidates imitate the parent's blocks")
    own = job.config(_imitation(job), settings.replacement.imitation)
    job.train("library", own, initial_params=lambda: given)
    judge, chosen = learned().judge, settings.space().choices(parent)
    base_loss = judge(chosen)
    if base_loss > settings.learned:
        raise InputError(
            f"config.learned={settings.learned}: the parent {parent} has a loss of {base_loss:.4g}"
            " nats a row: it has not learned enough to be searched; train it longer"
            " (config.run.duration), or say that this is enough"
        )
    scores = choosing.replace_one(judge, chosen)
    rows = job.rows[:_SIMILAR]
    batch = Batch(jnp.asarray(rows), index=jnp.arange(len(rows)))
    similar = np.asarray(nnx.jit(lambda module: module.similarities(batch))(learned().module))
    return {"scores": [each.tolist() for each in scores], "similarities": similar.tolist()}


def _parameters_of(module: Any) -> dict[str, np.ndarray]:
    """A module's parameters by name."""
    flat = checkpoint.flatten(split(module)[1])
    return {name: np.asarray(leaf) for name, leaf in flat.items()}


def _with_parameters(module: Any, given: dict[str, np.ndarray]) -> Any:
    """The module with these parameters, by name."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    leaves = {name: jnp.asarray(leaf) for name, leaf in given.items()}
    new = checkpoint.unflatten(nnx.to_pure_dict(params), leaves)
    nnx.replace_by_pure_dict(params, new)
    return nnx.merge(graph, params, rest)


def _tuned(
    job: SearchFolder,
    learned: Learned,
    scores: list[np.ndarray],
    prices: list[np.ndarray],
    choices: list[int],
) -> dict[str, Any]:
    """One layout of the front: grafted from the library, and trained a little as a whole."""
    settings, space = job.settings, job.settings.space()
    layout = space.layout(choices)
    name = f"front/{layout}".replace("|", "-")
    model = spaces.with_layout(settings.run.model, layout)
    given = imitation.grafted(learned.library, space, layout)
    config, weight = job.config(model, settings.replacement.tuning), settings.replacement.distil
    objective = None
    # The parent itself goes on as it learned: held against what it is, it would stand still.
    if weight and layout != settings.parent():
        teacher = imitation.Teacher(learned.parent, config.compute)
        objective = imitation.Distilled(model, teacher, weight)
    outcome = job.train(name, config, initial_params=lambda: given, objective=objective)
    return {
        "layout": str(layout),
        "choices": choices,
        "price": float(sum(each[choice] for each, choice in zip(prices, choices, strict=True))),
        "score": float(sum(each[choice] for each, choice in zip(scores, choices, strict=True))),
        "grafted_loss": learned.judge(choices),
        "loss": outcome.metrics["loss"],
    }
