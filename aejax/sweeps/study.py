"""An adaptive sweep: Optuna chooses the values of each trial by those before it.

    WORKDIR/study.log          Optuna's journal; processes on one file system share it
    WORKDIR/runs/trial-7/      a run like any other
    WORKDIR/claims/trial-7/    the lock of the process that trains it

What is least is the best value of `config.evaluation.metric`. A trial whose process has ended is
taken up by the next one that finds it.
"""

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aejax import cluster
from aejax.config import Config
from aejax.errors import InputError
from aejax.evaluation import checkpoints
from aejax.runs import claims
from aejax.sweeps.cells import AND, Cell, Grid, axes, make, split_outside
from aejax.sweeps.run import DONE, SweepFolder

if TYPE_CHECKING:
    import optuna

_JOURNAL, _NAME = "study.log", "sweep"
_NUMBER = r"[-+\d.eE]+"


def search(
    job: SweepFolder,
    space: Grid,
    make_config: Callable[[dict[str, Any]], Config],
    trials: int,
) -> dict[str, Any] | None:
    """Runs trials until the study has so many.

    Args:
        job: the sweep.
        space: {setting: its values, or one range: LOW..HIGH, log:LOW..HIGH or int:LOW..HIGH}; of
            settings that change together {their names: tuples to choose from}.
        make_config: {setting: text} -> checked settings.
        trials: of the study, over all processes and starts.

    Returns:
        What sweep.json holds; None where other processes have trials that have not ended.

    Raises:
        InputError: a bad space or setting, a folder of another sweep, or no Optuna.
        Stopped: asked to, with everything saved.
    """
    optuna = _optuna()
    if not space:
        raise InputError("--sweep is missing: must name a setting and its values")
    checkpoints.check_tasks(job.tasks)
    joined = {AND.join(names): [AND.join(each) for each in v] for names, v in axes(space).items()}
    spread = {name: _distribution(name, values) for name, values in joined.items()}
    for ends in (0, -1):  # both ends of every range are accepted, before anything is trained
        make(_settings({name: _end(each, ends) for name, each in spread.items()}), make_config)
    job.check_names([_trial(number) for number in range(trials)])
    os.makedirs(job.workdir, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = optuna.storages.journal.JournalFileBackend(job.path(_JOURNAL))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend), study_name=_NAME, load_if_exists=True
    )

    def cell(trial: Any) -> Cell:
        values = {name: _text(trial.params[name]) for name in spread}
        return make(_settings(values), make_config, _trial(trial.number))

    _check_space(job, study.trials, spread)
    job.check_unchanged([cell(one) for one in study.trials[:trials] if one.state.is_finished()])
    base = make_config({}).seed
    while (taken := _next(job, study, spread, trials, base)) is not None:
        number, claim = taken
        with claim:
            trial = study.trials[number]
            if trial.state.is_finished():
                continue
            one = cell(trial)
            found = job.record(one)
            if found is None:
                job.prepare([one])
                found = job.run(one)
            value = found["best"]["value"] if found["status"] == DONE and found["best"] else None
            failed = optuna.trial.TrialState.FAIL if value is None else None
            study.tell(number, value, state=failed)
    ended = [trial for trial in study.trials[:trials] if trial.state.is_finished()]
    if len(ended) < trials:
        job.say(f"{trials - len(ended)} of {trials} trials have not ended; no report yet")
        return None
    each = [cell(trial) for trial in ended]
    whole = [(found, one) for one in each if (found := job.record(one)) is not None]
    whole.sort(key=lambda pair: (pair[0].get("best") or {"value": float("inf")})["value"])
    cells, records = [one for _, one in whole], [found for found, _ in whole]
    return job.report(cells, records)


def _check_space(job: SweepFolder, trials: Sequence[Any], spread: dict[str, Any]) -> None:
    """Refuses a space without one of the study's trials, which could not be told beside the others.

    Raises:
        InputError: names the setting, with what it was chosen from and what it would be.
    """
    from optuna.distributions import CategoricalDistribution

    for trial in trials:
        known = trial.distributions
        names = {*known, *spread} if trial.state.is_finished() else {*known}
        for name in sorted(names):
            old, new = known.get(name), spread.get(name)
            if new and type(old) is type(new) and not isinstance(old, CategoricalDistribution):
                value = trial.params[name]
                if new.log == old.log and new.low <= value <= new.high:
                    continue
            if old != new:
                raise InputError(
                    f"--workdir={job.workdir} holds a sweep that chose {name} from"
                    f" {_words(old)}, not from {_words(new)}: use another folder, or values that"
                    " hold those of its trials"
                )


def _words(distribution: Any) -> str:
    """A distribution as --sweep has it."""
    from optuna import distributions

    if distribution is None:
        return "its one value"
    if isinstance(distribution, distributions.CategoricalDistribution):
        return ",".join(map(str, distribution.choices))
    whole = isinstance(distribution, distributions.IntDistribution)
    kind = "int:" if whole else "log:" if distribution.log else ""
    return f"{kind}{distribution.low}..{distribution.high}"


def _trial(number: int) -> str:
    """The name of a trial's cell, and of its lock."""
    return f"trial-{number}"


def _settings(chosen: Mapping[str, str]) -> dict[str, str]:
    """{setting: text}, where A&B=1&x are two."""
    out = {}
    for name, value in chosen.items():
        names = name.split(AND)
        values = split_outside(value, AND) if len(names) > 1 else [value]
        out |= dict(zip(names, values, strict=True))
    return out


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError("--trials needs Optuna: pip install 'aejax[optuna]'") from None
    return optuna


def _next(
    job: SweepFolder, study: "optuna.Study", spread: dict[str, Any], trials: int, seed: int
) -> tuple[int, contextlib.ExitStack] | None:
    """The trial to run and its lock: one that its process left, else a new one; or None."""
    import optuna

    if job.stop():
        raise cluster.Stopped
    while True:
        known = study.trials
        for trial in known[:trials]:
            if trial.state.is_finished():
                continue
            if claim := claims.claim(job.claim(_trial(trial.number))):
                return trial.number, claim
        if len(known) >= trials:
            return None
        # A sampler of its own for each: a study that is taken up again draws the same values.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(known), constant_liar=True)
        number = study.ask(spread).number
        if number >= trials:  # another process was quicker: the study is full
            study.tell(number, state=optuna.trial.TrialState.FAIL)
            return None
        if claim := claims.claim(job.claim(_trial(number))):
            return number, claim
        # Another process saw it without a lock, and has taken it up.


def _distribution(name: str, values: Sequence[str]) -> Any:
    """A range, or the values to choose from."""
    from optuna import distributions

    match = re.fullmatch(rf"(log:|int:|)({_NUMBER})\.\.({_NUMBER})", values[0])
    if match is None:
        return distributions.CategoricalDistribution(list(values))
    try:
        if len(values) > 1:
            raise ValueError("a range must stand alone")
        if match[1] == "int:":
            return distributions.IntDistribution(int(match[2]), int(match[3]))
        return distributions.FloatDistribution(
            float(match[2]), float(match[3]), log=match[1] == "log:"
        )
    except ValueError as error:
        raise InputError(f"--sweep={name}={','.join(values)}: {error}") from None


def _end(distribution: Any, end: int) -> str:
    """The text of a distribution's first (0) or last (-1) value."""
    from optuna import distributions

    if isinstance(distribution, distributions.CategoricalDistribution):
        return _text(distribution.choices[end])
    return _text((distribution.low, distribution.high)[end])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
