"""Small runs for tests."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.config import Checkpoint, Config, Evaluation
from aejax.data.sources.base import Source
from aejax.models import Autoencoder
from aejax.models.autoencoder import AutoencoderModule
from aejax.models.bottlenecks import Plain
from aejax.models.interfaces import Penalty
from aejax.optimizer import Adam
from aejax.training.outcome import Outcome
from aejax.training.setup import setup
from aejax.training.state import TrainState
from aejax.training.trainer import Trainer


def small(**changes: Any) -> Config:
    """A dense autoencoder of the digits, 150 steps."""
    settings: dict[str, Any] = {
        "model": Autoencoder(latent_dim=8, bottleneck=Plain("relu")),
        "optimizer": Adam(learning_rate=1e-3),
        "batch_size": 64,
        "duration": "150 steps",
        "log_every": 10,
        "evaluation": Evaluation(every="50 steps"),
        "checkpoint": Checkpoint(every="50 steps", keep=10),
        "trackers": (),
    }
    return Config(**{**settings, **changes})


def train(
    config: Config,
    workdir: Any,
    sources: Any = None,
    *,
    devices: Any = None,
    objective: Any = None,
    accept_changed_data: bool = False,
    **options: Any,
) -> Outcome:
    """Trains on one device unless others are given: programs for eight take longer to compile.

    Args:
        config, workdir, accept_changed_data: as `Trainer` takes them.
        sources: training and test split, or None for those of the settings.
        devices: None for the first one.
        objective: as `setup` takes it; config.json then keeps the settings' own source.
        options: of `Trainer.fit`.
    """
    devices = devices or jax.devices()[:1]
    if objective is None:
        trainer = Trainer(
            config,
            workdir,
            *(sources or ()),
            devices=devices,
            accept_changed_data=accept_changed_data,
        )
    else:
        place = str(workdir)
        make = functools.partial(
            setup, config, sources, place, False, devices, objective, accept_changed_data
        )
        trainer = Trainer.with_setup(make, place)
    return trainer.fit(**{"quiet": True, **options})


def losses(*arguments: Any, **options: Any) -> tuple[list[float], TrainState]:
    """The losses of `terms`."""
    found, begun = terms(*arguments, **options)
    return [each["loss"] for each in found], begun


def terms(
    config: Config,
    steps: int,
    devices: int = 1,
    begun: TrainState | None = None,
    sources: tuple[Source, Source] | None = None,
    objective: Any = None,
) -> tuple[list[dict[str, float]], TrainState]:
    """The loss and its terms in each step, and the state before them.

    There is no folder, no evaluation and no save.

    Args:
        begun: the state to start from, on the host; None for a fresh one.
        sources, objective: as `setup` takes them.
    """
    run_setup = setup(config, sources, devices=jax.devices()[:devices], objective=objective)
    feed = run_setup.open_feed()
    if begun is None:
        begun = jax.device_get(run_setup.init())
    state = jax.tree.map(lambda a, leaf: jax.device_put(a, leaf.sharding), begun, run_setup.state)
    dispatch, found = run_setup.compile(feed), []
    for step in range(steps):
        block = feed.at(step)
        numbers = np.int32(block.first), np.int32(1), np.int32(1)
        placed = [jax.device_put(number, run_setup.replicated) for number in numbers]
        state, report = dispatch(state, block.arrays, *placed)
        window = run_setup.state.window.unpack(np.asarray(report.rows)[0])
        found.append({name: float(value) for name, value in window.sums.items()})
    feed.close()
    return found, begun


@dataclasses.dataclass
class Watched(Autoencoder):
    """An autoencoder that also reports the mean index of its rows: which batch it was given."""

    def init(self, rngs, batch):
        return WatchedModule(self, batch.x.shape[1:], rngs)


class WatchedModule(AutoencoderModule):
    def loss(self, batch, context=None):
        total, terms = super().loss(batch, context)
        return total, {**terms, "index": jnp.mean(batch.index.astype(jnp.float32))}


@dataclasses.dataclass
class FailsAt(Penalty):
    """A penalty that breaks at one step: its value, or its gradient alone."""

    step: int
    gradient_only: bool = False

    def __call__(self, inputs, context):
        z = inputs.z
        if not context.training:
            return {}
        if self.gradient_only:
            bad = jax.lax.cond(
                context.step == self.step,
                lambda z: jnp.sqrt(jnp.sum(0.0 * z)),  # 0, with a derivative of 0 / 0
                lambda z: 0.0 * jnp.sum(z),
                z,
            )
        else:
            bad = jnp.where(context.step == self.step, jnp.inf, 0.0)
        return {"bad": bad}
