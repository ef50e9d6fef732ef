"""A search that goes on: its folder, its rows, and the runs that it trains."""

import contextlib
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax import files
from aejax.config import Config
from aejax.data.prepare import Preparation
from aejax.data.sources.base import Rows, Source
from aejax.models import Autoencoder
from aejax.search import space as spaces
from aejax.search.settings import Search
from aejax.search.space import Layout
from aejax.train import loop
from aejax.train.setup import abstract_batch
from aejax.train.state import split

# Where seeds begin that layouts are reported with, so that none is one that chose them.
_OTHER_SEEDS = 1000


class Stopped(Exception):
    """A run was stopped, with everything saved."""


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows from `start` to `stop` of a source."""

    source: Source
    start: int
    stop: int

    @property
    def spec(self):
        return self.source.spec

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        if isinstance(index, slice):
            index = np.arange(len(self))[index]
        return self.source[index + self.start]


@dataclasses.dataclass
class Job:
    """A search that goes on.

    Attributes:
        settings: checked.
        workdir: its folder.
        learning: rows that blocks learn from.
        judging: rows that layouts are chosen by.
        test: rows that layouts are reported on.
        preparation: raw rows -> x.
        rest: stop, quiet and devices, for every run.
    """

    settings: Search
    workdir: str
    learning: Source
    judging: Source
    test: Source
    preparation: Preparation
    rest: dict[str, Any]

    def path(self, *names: str) -> str:
        return os.path.join(self.workdir, *names)

    def say(self, line: str) -> None:
        if not self.rest["quiet"]:
            print(line, file=sys.stderr, flush=True)

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """Prepared rows that layouts are judged by."""
        count = min(self.settings.judged, len(self.judging))
        return np.asarray(self.preparation(jnp.asarray(self.judging[np.arange(count)].x)))

    def train(self, name: str, config: Config, sources: Any = None, **more: Any) -> Any:
        """A run in a sub-folder, to its end; `more` as in `aejax.train.loop.train`."""
        sources = sources or (self.learning, self.test)
        outcome = loop.train(config, self.path(name), sources, **more, **self.rest)
        if outcome.status == "stopped":
            raise Stopped
        return outcome

    def config(self, model: Any, duration: str, seed: int | None = None) -> Config:
        run = self.settings.run
        seed = run.seed if seed is None else seed
        return dataclasses.replace(
            run, model=model, duration=duration, seed=seed, tensorboard=False
        )

    def kept(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a file holds; made and written first where there is none."""
        path = self.path(name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                return json.load(file)
        made = make()
        files.write(path, json.dumps(made, indent=1))
        return made

    def forget(self, name: str) -> None:
        """Makes what a file held be made anew."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.path(name))

    def trained(self, name: str, model: Autoencoder) -> dict[str, Any]:
        """A model trained from nothing, each seed; its metrics on the test split, by name."""
        settings, runs = self.settings, []
        for number in range(settings.seeds):
            seed = settings.run.seed + _OTHER_SEEDS + number
            self.say(f"{name}, seed {seed}")
            folder = f"again/{name}-{seed}".replace("|", "-")
            runs.append(self.train(folder, self.config(model, settings.run.duration, seed)).metrics)
        return {key: [run[key] for run in runs] for key in runs[0]}

    def parameters(self, model: Autoencoder) -> int:
        """How many a model has."""
        batch = abstract_batch(self.settings.run, self.learning.spec)
        module = nnx.eval_shape(lambda: model.init(nnx.Rngs(0), batch))
        return sum(leaf.size for leaf in jax.tree.leaves(split(module)[1]))

    def model(self, layout: Layout) -> Autoencoder:
        """The autoencoder with these blocks."""
        return spaces.with_layout(self.settings.run.model, layout)
