"""A search that goes on: its folder, its rows, and the runs that it trains."""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax import cluster, files
from aejax.config import Config
from aejax.data.prepare import Preparation
from aejax.data.sources.base import Rows, Source
from aejax.models import Autoencoder
from aejax.runs import tracking
from aejax.search import space as spaces
from aejax.search.settings import Search
from aejax.search.space import Layout
from aejax.training import several
from aejax.training.outcome import Outcome
from aejax.training.setup import Setup, abstract_batch, seeded, setup
from aejax.training.start import InitialParams
from aejax.training.state import split
from aejax.training.trainer import Trainer

# Where seeds begin that layouts are reported with, so that none is one that chose them.
_OTHER_SEEDS = 1000


@dataclasses.dataclass(frozen=True)
class RowRange:
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
class SearchFolder:
    """A search that goes on.

    Attributes:
        settings: checked.
        workdir: its folder.
        learning: rows that blocks learn from.
        judging: rows that layouts are chosen by.
        test: rows that layouts are reported on.
        preparation: raw rows -> x.
        rest: stop, quiet and devices, for every run.
        failed: something beside has failed; what still runs is saved and stops.
    """

    settings: Search
    workdir: str
    learning: Source
    judging: Source
    test: Source
    preparation: Preparation
    rest: dict[str, Any]
    failed: bool = dataclasses.field(default=False, init=False)

    def path(self, *names: str) -> str:
        return os.path.join(self.workdir, *names)

    def say(self, line: str) -> None:
        if not self.rest["quiet"]:
            tracking.show(line)

    @functools.cached_property
    def judged(self) -> RowRange:
        """Rows that layouts are judged by."""
        return RowRange(self.judging, 0, min(self.settings.judged, len(self.judging)))

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """The same, prepared."""
        return np.asarray(self.preparation(jnp.asarray(self.judged[:].x)))

    def train(
        self,
        name: str,
        config: Config,
        sources: tuple[Source, Source] | None = None,
        *,
        initial_params: InitialParams | None = None,
        objective: Any = None,
        same_programs: Setup | None = None,
    ) -> Outcome:
        """A run in a sub-folder, to its end, evaluated on the rows that layouts are judged by.

        Args:
            name: of the folder.
            config: of the run.
            sources: rows to learn from and to be evaluated on, in place of these.
            initial_params: as `Trainer.fit` takes them.
            objective: as `aejax.training.setup.setup` takes it.
            same_programs: of a run that differs in its seed alone; its sources and compiled
                programs serve here.
        """
        sources, place = sources or (self.learning, self.judged), self.path(name)

        def make_setup(say: Callable[[str], None]) -> Setup:
            if same_programs is not None:
                return seeded(same_programs, config, place)
            devices = self.rest["devices"]
            return setup(config, sources, place, False, devices, objective, say=say)

        outcome = Trainer.with_setup(make_setup, place).fit(
            stop=lambda: self.failed or self.rest["stop"](),
            quiet=self.rest["quiet"],
            label=name,
            initial_params=initial_params,
        )
        if outcome.status == "stopped":
            raise cluster.Stopped
        return outcome

    def parallel_map(self, make: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """`make` of each item, in their order (`several.parallel_map`)."""

        def stop_others() -> None:
            self.failed = True

        return several.parallel_map(make, items, self.rest["devices"], stop_others)

    def config(self, model: Any, duration: str, seed: int | None = None) -> Config:
        run = self.settings.run
        seed = run.seed if seed is None else seed
        return dataclasses.replace(run, model=model, duration=duration, seed=seed, trackers=())

    def load_or_compute(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
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

    def retrain(self, models: dict[str, Autoencoder]) -> dict[str, dict[str, Any]]:
        """Models by name, each trained from nothing with each seed.

        Returns:
            Of each its metrics on the test split, by name, one number a seed.
        """
        settings = self.settings
        first = settings.run.seed + _OTHER_SEEDS
        seeds = range(first, first + settings.seeds)
        sources = (self.learning, self.test)
        setups: dict[str, Setup] = {}

        def run(one: tuple[int, str]) -> dict[str, float]:
            seed, name = one
            config = self.config(models[name], settings.run.duration, seed)
            if name not in setups:
                setups[name] = setup(config, sources, devices=self.rest["devices"])
            folder = f"again/{name}-{seed}".replace("|", "-")
            return self.train(folder, config, sources, same_programs=setups[name]).metrics

        # Different models side by side: each is compiled once then, for all of its seeds.
        found = self.parallel_map(run, itertools.product(seeds, models))
        out = {}
        for number, name in enumerate(models):
            runs = found[number :: len(models)]
            out[name] = {key: [one[key] for one in runs] for key in runs[0]}
        return out

    def parameters(self, model: Autoencoder) -> int:
        """How many a model has."""
        batch = abstract_batch(self.settings.run, self.learning.spec)
        module = nnx.eval_shape(lambda: model.init(nnx.Rngs(0), batch))
        return sum(leaf.size for leaf in jax.tree.leaves(split(module)[1]))

    def model(self, layout: Layout) -> Autoencoder:
        """The autoencoder with these blocks."""
        return spaces.with_layout(self.settings.run.model, layout)
