"""Checks that rows are those of a run, or like those of its other split; computes nothing."""

import dataclasses

import jax

from aejax.config import Config, get
from aejax.data.sources import ARRAYS
from aejax.data.sources.base import Source, Spec
from aejax.errors import InputError
from aejax.models.batch import Batch
from aejax.runs import folder
from aejax.training.state import ModelFns


def check_unlabelled(config: Config, built: ModelFns, batch: Batch) -> None:
    """Raises InputError for a test split without labels if the model's loss needs them."""
    state = built.abstract

    def loss(params, model_state, batch):
        return built.merge(params, model_state).loss(batch)

    try:
        jax.eval_shape(loss, state.params, state.model_state, batch._replace(label=None))
    except Exception:  # whatever a loss raises without labels
        raise InputError(
            f"config.data.test={config.data.test}: has no labels, which the loss of config.model"
            f" needs; those of config.data.train={config.data.train} have some"
        ) from None


def check_same_kind(config: Config, train: Source, test: Source) -> None:
    """Raises InputError if the test split's rows have another form than the training split's.

    Labels may be missing: `check_unlabelled` checks them.
    """
    if not _same_kind(train.spec, test.spec):
        raise InputError(
            f"config.data.test={config.data.test}: {test.spec.describe()}; accepted: rows like"
            f" those of config.data.train={config.data.train}, {train.spec.describe()}"
        )


def _same_kind(one: Spec, other: Spec) -> bool:
    """Whether a model can take rows of both specs."""
    return dataclasses.replace(one, labelled=False) == dataclasses.replace(other, labelled=False)


def check(
    old: folder.Run,
    config: Config,
    train: Source,
    fingerprints: dict[str, str],
    workdir: str,
    accept_changed_data: bool,
) -> None:
    """Raises InputError for other rows than those of the folder's run."""
    there, here = old.config.data.source, config.data.source
    now = f"config.data.source={here}{'' if there == here else f' (it was {there})'}"
    if not _same_kind(old.spec, train.spec):
        raise InputError(
            f"--workdir={workdir} was trained on {old.spec.describe()}; {now} has"
            f" {train.spec.describe()}"
        )
    known = old.fingerprints
    # A run of a version without fingerprints: only the number and name of its rows can be compared.
    changed = [name for name in known if known[name] != fingerprints[name]]
    if not known and (old.rows != len(train) or here not in (there, ARRAYS)):
        changed = ["train"]
    if changed and not accept_changed_data:
        splits = " and ".join(
            f"config.data.{name}={get(config, f'data.{name}')}" for name in changed
        )
        raise InputError(
            f"--workdir={workdir} was trained on other data: the rows of {splits} in {now} are not"
            f" those that the run began with ({old.rows} in training then, {len(train)} now);"
            " accepted: the old rows, or --accept_changed_data to go on with these and the old"
            " statistics"
        )
