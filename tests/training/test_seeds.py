"""Runs that differ in their seeds alone."""

import pytest

from aejax.errors import InputError
from aejax.models import Autoencoder
from aejax.models.corruption import Masking
from aejax.training.setup import seeded, setup
from tests.training.runs import small, train


def test_seeds_share_one_program():
    programs = []
    for seed in (1, 2):
        run_setup = setup(small(model=Autoencoder(corruption=Masking()), seed=seed))
        feed = run_setup.open_feed()
        programs.append(run_setup.lower(feed, run_setup.constants(feed)).as_text())
    assert programs[0] == programs[1] and "threefry" in programs[0]


def test_what_a_run_is_alike_differs_in_its_seed_alone(tmp_path):
    run_setup = setup(small())
    with pytest.raises(ValueError, match="more than their seed"):
        seeded(run_setup, small(seed=1, batch_size=32))
    train(small(seed=1, duration="10 steps"), str(tmp_path), quiet=True)
    with pytest.raises(InputError, match="holds a run with other settings.*config.seed: 1 -> 2"):
        seeded(run_setup, small(seed=2), str(tmp_path))
