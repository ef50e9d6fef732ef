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
from aejax.runs import claims, tracking
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
# What came out of a run, in its folder: {its duration: that}.
_OUTCOME = "outcome.json"


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
        run_options: stop, quiet and devices, for every run.
        failed: something beside has failed; what still runs is saved and stops.
    """

    settings: Search
    workdir: str
    learning: Source
    judging: Source
    test: Source
    preparation: Preparation
    run_options: dict[str, Any]
    failed: bool = dataclasses.field(default=False, init=False)

    def path(self, *names: str) -> str:
        return os.path.join(self.workdir, *names)

    def say(self, line: str) -> None:
        if not self.run_options["quiet"]:
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
            devices = self.run_options["devices"]
            return setup(config, sources, place, False, devices, objective, say=say)

        outcome = Trainer.with_setup(make_setup, place).fit(
            stop=self._stop,
            quiet=self.run_options["quiet"],
            label=name,
            initial_params=initial_params,
        )
        if outcome.status == "stopped":
            raise cluster.Stopped
        return outcome

    def shared_map(
        self,
        make: Callable[[Any], Any],
        items: Iterable[Any],
        name: Callable[[Any], str],
        duration: str,
    ) -> list[Any]:
        """`make` of each item, in their order: a run each, which one of several processes trains.

        What came out of a run is kept in its folder, as outcome.json.

        Args:
            make: trains the run of an item; returns what JSON can hold.
            name: of the folder of an item's run.
            duration: of the runs.
        """

        def stop_others() -> None:
            self.failed = True

        def work(item: Any) -> several.Work:
            folder = name(item)
            known = functools.partial(self._outcome, folder, duration)
            make_one = functools.partial(self._ended, folder, duration, make, item)
            return several.Work(self._claim(folder), known, make_one)

        shared = several.Shared([work(item) for item in items], self._stop)
        return shared.run(self.run_options["devices"], stop_others)

    def _outcome(self, folder: str, duration: str) -> Any:
        """What came out of a run of this duration; None where none has ended."""
        return (self.kept(f"{folder}/{_OUTCOME}") or {}).get(duration)

    def _ended(self, folder: str, duration: str, make: Callable[[Any], Any], item: Any) -> Any:
        """Makes an item, and keeps what came out in its run's folder."""
        made, file = make(item), f"{folder}/{_OUTCOME}"
        if cluster.is_main():
            self.keep(file, {**(self.kept(file) or {}), duration: made})
        return made

    def _stop(self) -> bool:
        return self.failed or self.run_options["stop"]()

    def config(self, model: Any, duration: str, seed: int | None = None) -> Config:
        run = self.settings.run
        seed = run.seed if seed is None else seed
        return dataclasses.replace(run, model=model, duration=duration, seed=seed, trackers=())

    def load_or_compute(
        self,
        name: str,
        make: Callable[[], dict[str, Any]],
        *,
        shared: bool = False,
        is_whole: Callable[[dict[str, Any]], bool] = lambda kept: True,
    ) -> dict[str, Any]:
        """What a file holds; made and written first where there is none.

        Args:
            name: of the file.
            make: by one process, while the others wait.
            shared: by all processes together, as it is made of runs that they share.
            is_whole: whether what a file holds is all that is wanted of it; else it is made anew.
        """

        def standing() -> dict[str, Any] | None:
            kept = self.kept(name)
            return kept if kept and is_whole(kept) else None

        if kept := standing():
            return kept
        if shared:
            made = make()
            return standing() or self.keep(name, made)
        with self.alone(name):
            return standing() or self.keep(name, make())

    def kept(self, name: str) -> dict[str, Any] | None:
        """What a file holds; None where there is none."""
        try:
            with open(self.path(name), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None

    def keep(self, name: str, found: dict[str, Any]) -> dict[str, Any]:
        """Writes a file, and returns what it holds."""
        files.write(self.path(name), json.dumps(found, indent=1))
        return found

    def alone(self, name: str) -> contextlib.AbstractContextManager:
        """Keeps others from what has this name; waits as long as one of them is at it.

        The processes of one job of JAX do everything together, and need no lock of this kind.

        Raises:
            Stopped: asked to stop.
        """
        if jax.process_count() > 1:
            return contextlib.nullcontext()
        say = functools.partial(self.say, f"{name}: another worker is at it; waiting")
        return claims.wait(self._claim(name), self._stop, say)

    def is_taken(self, name: str) -> bool:
        """Whether another process is making a file."""
        if jax.process_count() > 1 or self.kept(name) is not None:
            return False
        own = claims.claim(self._claim(name))
        if own is not None:
            own.close()
        return own is None

    def _claim(self, name: str) -> str:
        """The folder of a lock (`aejax.runs.claims`)."""
        return self.path("claims", name)

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
                setups[name] = setup(config, sources, devices=self.run_options["devices"])
            return self.train(folder(one), config, sources, same_programs=setups[name]).metrics

        def folder(one: tuple[int, str]) -> str:
            return f"again/{one[1]}-{one[0]}".replace("|", "-")

        # Different models side by side: each is compiled once then, for all of its seeds.
        each = itertools.product(seeds, models)
        found = self.shared_map(run, each, folder, settings.run.duration)
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
