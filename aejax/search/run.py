"""A search from its settings to a report; started again, it goes on where it was.

    WORKDIR/search.json     the settings
    WORKDIR/latency.json    what blocks take, where that is their price
    WORKDIR/supernet/       a run: the supernet;       supernet.json    the layout that it found
    WORKDIR/parent/, library/, front/LAYOUT/           runs of replacing.py, which says more
    WORKDIR/trials/NAME/    runs: layouts of the same blocks; trials-1.json to trials-3.json
    WORKDIR/again/NAME/     runs: each layout from nothing, each seed
    WORKDIR/latencies.json  what each layout takes, and each block in the same rounds
    WORKDIR/layouts.json    all layouts and what was measured of them
    WORKDIR/report.html     the same to look at
    WORKDIR/claims/NAME/    the lock of the process that trains, times or decides NAME

Everything that trains is a run like any other, in its own folder, and whatever is decided is
written before the next thing begins: nothing is trained, scored or timed twice. Any number of
processes may search in one folder: they share the runs that do not need one another (of the front,
the trials, and those from nothing), one does what the others wait for. A search that has
ended takes more seeds, controls, random layouts or arms (--config.seeds=5): what is new is trained,
and where there are other layouts all are timed once more, in one go.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from aejax import cluster, kinds
from aejax.config import renamed
from aejax.errors import InputError
from aejax.mesh import Devices
from aejax.nn.layout import ATTENTION
from aejax.runs import loading, lock
from aejax.search import choosing, comparing, latency, replacing, retraining
from aejax.search import space as spaces
from aejax.search.choosing import Judge
from aejax.search.job import RowRange, SearchFolder
from aejax.search.latency import Latency, Table
from aejax.search.settings import Search, check_search
from aejax.search.space import Layout
from aejax.search.supernet import Pairs, Supernet
from aejax.training.setup import setup

COLLAPSED = "collapsed"
_SETTINGS, _FOUND, _TIMES = "search.json", "layouts.json", "latencies.json"
_FINGERPRINTS = "fingerprints"  # of the data, beside the settings
# Settings of what is compared, and not of what is found: a search that has ended takes new ones.
_COMPARED = ("controls", "equal", "latency", "random", "seeds")
# Rows by which blocks' outputs are compared with their inputs.
_SIMILAR = 256


def search(
    settings: Search,
    workdir: str,
    stop: Callable[[], bool] = cluster.never,
    quiet: bool = False,
    download: bool = False,
    devices: Devices | None = None,
) -> dict[str, Any] | None:
    """Searches, or goes on searching, in this folder.

    Args:
        settings: what and how.
        workdir: the search's folder; made where it does not exist.
        stop: asked between dispatches.
        quiet: show nothing.
        download: whether TFDS may download what is missing.
        devices: those to train on; None for all.

    Returns:
        What layouts.json holds, or None where it was stopped, with everything saved.

    Raises:
        InputError: bad settings, data or folder, or a parent that has learned too little.
    """
    check_search(settings)
    run_setup = setup(settings.run, None, None, download, devices)
    if run_setup.train.spec.padded:
        raise InputError(
            f"config.run.data.source={settings.run.data.source}: rows have a length each; a search"
            " takes whole rows"
        )
    if run_setup.train.spec.missing:
        raise InputError(
            f"config.run.data.source={settings.run.data.source}: values are missing in its rows; a"
            " search takes whole rows"
        )
    cut = len(run_setup.train) - max(round(settings.holdout_fraction * len(run_setup.train)), 1)
    judging = RowRange(run_setup.train, cut, len(run_setup.train))
    run_options = {"stop": stop, "quiet": quiet, "devices": devices}
    learning = RowRange(run_setup.train, 0, cut)
    job = SearchFolder(
        settings, workdir, learning, judging, run_setup.test, run_setup.preparation, run_options
    )
    together = jax.process_count() > 1 and cluster.is_main()  # one job: no other process may help
    with lock.locked(workdir) if together else contextlib.nullcontext():
        try:
            with job.alone(_SETTINGS):
                _take_settings(job, run_setup.fingerprints)
            return job.kept(_FOUND) or _ended(job)
        except cluster.Stopped:
            return None


def _ended(job: SearchFolder) -> dict[str, Any]:
    """Searches to the end, and writes what was found where the folder's settings are still these.

    Raises:
        InputError: another process has begun to compare something else.
    """
    found = _run_search(job)
    with job.alone(_SETTINGS):
        stored, _ = _stored(job)
        if changed := [name for name, *_ in kinds.differences(stored, job.settings)]:
            raise InputError(
                f"--workdir={job.workdir}: another process has begun to compare something else here"
                f" (config.{changed[0]}): start again with its settings; what was trained stays"
            )
        return job.keep(_FOUND, found)


def _stored(job: SearchFolder) -> tuple[dict[str, Any], dict[str, str] | None]:
    """The settings that search.json holds, and the data's fingerprints.

    An earlier version wrote none of these: None.
    """
    stored = dict(job.kept(_SETTINGS) or {})
    fingerprints = stored.pop(_FINGERPRINTS, None)
    return {**renamed(stored), "run": renamed(stored["run"])}, fingerprints


def _take_settings(job: SearchFolder, fingerprints: dict[str, str]) -> None:
    """Writes the settings and the data's fingerprints, or compares them with those that stand."""
    mine = {**kinds.to_dict(job.settings), _FINGERPRINTS: fingerprints}
    if job.kept(_SETTINGS) is None:
        job.keep(_SETTINGS, mine)
    stored, known = _stored(job)
    kinds.from_dict(Search, stored)
    changed = list(kinds.differences(stored, job.settings))
    closed = [
        f"config.{name}: {old!r} -> {new!r}"
        for name, old, new in changed
        if name.partition(".")[0] not in _COMPARED
    ]
    if closed:
        raise InputError(
            f"--workdir={job.workdir} holds a search with other settings ({'; '.join(closed)}):"
            f" use another folder, or the old values; only {', '.join(_COMPARED)} may change"
        )
    if known not in (None, fingerprints):
        raise InputError(
            f"--workdir={job.workdir} holds a search on other data: the rows of"
            f" config.run.data.source={job.settings.run.data.source} are not those that it began"
            " with; use another folder, or the old rows"
        )
    if changed:
        job.forget(_FOUND)
        job.keep(_SETTINGS, mine)


def _run_search(job: SearchFolder) -> dict[str, Any]:
    settings = job.settings
    prices = _prices(job)
    layouts: dict[str, Layout] = {"parent": settings.parent()}
    out: dict[str, Any] = {"parent": str(settings.parent()), "margin": settings.margin}
    if settings.method == "both" and job.is_taken("supernet.json"):
        _replacement(job, prices)  # meanwhile
    if settings.method in ("both", "supernet"):
        out["supernet"] = job.load_or_compute("supernet.json", lambda: _supernet(job, prices))
        if not out["supernet"][COLLAPSED]:
            layouts["supernet"] = spaces.read(out["supernet"]["layout"])
    if settings.method in ("both", "replacement"):
        out["replacement"] = _replacement(job, prices)
        layouts["replacement"] = spaces.read(out["replacement"]["layout"])
        layouts["cosine"] = spaces.read(out["replacement"]["cosine"])
    if settings.trials and settings.method != "none" and len(layouts) == 1:
        job.say("nothing was found: no layouts are tried")
    elif settings.trials:
        out["trials"] = retraining.successive_halving(job, comparing.chosen(layouts))
        layouts["trials"] = spaces.read(out["trials"]["layout"])
    layouts |= {text: settings.layout(text) for text in settings.controls}
    layouts |= _random(job, layouts)
    if "replacement" in out:
        out["scores"] = _summed_scores(settings.space(), out["replacement"]["scores"], layouts)
    if settings.seeds:
        out["again"] = _retrain_layouts(job, layouts)
        out["equal"] = {
            what: retraining.at_equal_cost(job, layouts, what) for what in settings.equal
        }
    if settings.latency:
        out["latency"] = _latencies(job, layouts)
    out["layouts"] = {name: str(layout) for name, layout in layouts.items()}
    return out


def _prices(job: SearchFolder) -> dict[str, float]:
    """Of each letter: 1 for attention, or its latency or parameters as a share of the dearest's."""
    space = job.settings.space()
    if job.settings.price == "attention":
        return {letter: float(letter in ATTENTION) for letter in space.letters}
    if job.settings.price == "latency":
        costs = {letter: max(one.training, 0.0) for letter, one in _table(job).blocks.items()}
    else:
        filled = {letter: job.model(space.filled(letter)) for letter in {"i", *space.letters}}
        counts = {letter: job.parameters(model) for letter, model in filled.items()}
        costs = {letter: count - counts["i"] for letter, count in counts.items()}
    dearest = max(costs[letter] for letter in space.letters)
    return {letter: costs[letter] / dearest for letter in space.letters}


def _table(job: SearchFolder) -> Table:
    settings = job.settings
    batch = job.rows[: settings.run.batch_size]

    def make() -> dict[str, Any]:
        job.say("measuring what each block takes")
        return dataclasses.asdict(
            latency.table(settings.run.model, settings.space(), batch, settings.run.compute)
        )

    kept = job.load_or_compute("latency.json", make)
    blocks = {letter: Latency(**each) for letter, each in kept["blocks"].items()}
    return Table(Latency(**kept["empty"]), blocks)


def _supernet(job: SearchFolder, prices: dict[str, float]) -> dict[str, Any]:
    """Trains the supernet and reads a layout off it."""
    settings, space = job.settings, job.settings.space()
    model = Supernet.of(settings, prices)
    job.say(f"supernet of {len(space.searched)} slots")
    sources = Pairs(job.learning, job.judging), Pairs(job.judged, job.judged)
    job.train("supernet", job.config(model, settings.supernet.duration), sources)
    module = loading.load(job.path("supernet"), say=job.say, model=model).module
    judge = Judge(module.model, space, job.rows)
    largest = [int(np.argmax(each)) for each in module.logits()]
    choices, path = choosing.eliminate(judge, largest, prices.__getitem__, settings.margin)
    loss = judge(choices)
    begun = int(module.learned_at[...])
    return {
        "largest": str(space.layout(largest)),
        "largest_loss": judge(largest),
        "layout": str(space.layout(choices)),
        "loss": loss,
        "eliminated": [[str(space.layout(each)), value] for each, value in path],
        "learned_at": begun,
        COLLAPSED: begun < 0 or loss > settings.learned,
        "weights": [np.asarray(jax.nn.softmax(each)).tolist() for each in module.logits()],
    }


def _replacement(job: SearchFolder, prices: dict[str, float]) -> dict[str, Any]:
    make = functools.partial(replacing.replacement, job, prices)
    return job.load_or_compute("replacement.json", make, shared=True)


def _summed_scores(
    space: spaces.Space, scores: list[list[float]], layouts: dict[str, Layout]
) -> dict[str, float]:
    """The sum of each layout's scores, of those that are made of candidates."""
    out = {}
    for layout in layouts.values():
        if space.holds(layout):
            choices = space.choices(layout)
            out[str(layout)] = sum(
                each[choice] for each, choice in zip(scores, choices, strict=True)
            )
    return out


def _random(job: SearchFolder, layouts: dict[str, Layout]) -> dict[str, Layout]:
    """Different networks of the blocks that the one found has, in other slots."""
    settings = job.settings
    found = comparing.chosen(layouts)
    drawn = spaces.rearranged(settings.space(), found, settings.random, settings.run.seed)
    if len(drawn) < settings.random:
        job.say(f"config.random={settings.random}: {len(drawn)} different ones were found")
    return {f"random {number}": layout for number, layout in enumerate(drawn, 1)}


def _retrain_layouts(job: SearchFolder, layouts: dict[str, Layout]) -> dict[str, Any]:
    """Each layout trained from nothing, each seed; its metrics on the test split, by name."""
    models = {str(layout): job.model(layout) for layout in layouts.values()}
    return {
        text: {**one, "parameters": job.parameters(models[text])}
        for text, one in job.retrain(models).items()
    }


def _latencies(job: SearchFolder, layouts: dict[str, Layout]) -> dict[str, Any]:
    """Each layout timed in place, beside the sum of what its blocks took in the same rounds."""
    settings, space = job.settings, job.settings.space()
    # Of these the sum is what was measured, by construction.
    own = {space.filled(letter) for letter in {"i", *space.letters}}

    def make() -> dict[str, Any]:
        job.say(f"measuring what {len(set(layouts.values()))} layouts take")
        table, seen = latency.compared(
            settings.run.model,
            space,
            list(layouts.values()),
            job.rows[: settings.run.batch_size],
            settings.run.compute,
        )
        out: dict[str, Any] = {}
        for layout, one in seen.items():
            out[str(layout)] = {"measured": dataclasses.asdict(one)}
            predicted = None if layout in own else table.predicted(layout, space)
            if predicted:
                out[str(layout)]["predicted"] = dataclasses.asdict(predicted)
        return {"table": dataclasses.asdict(table), "layouts": out}

    def timed(kept: dict[str, Any]) -> bool:
        return set(kept.get("layouts", {})) == {str(layout) for layout in layouts.values()}

    return job.load_or_compute(_TIMES, make, is_whole=timed)["layouts"]
