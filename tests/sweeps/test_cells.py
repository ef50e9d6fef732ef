"""Combinations of settings, and what the cells of a sweep are called."""

import pytest

from aejax.errors import InputError
from aejax.models.corruption import Masking
from aejax.sweeps.cells import cells, split_values, with_values
from tests.training.runs import small


def made(grid):
    return cells(grid, lambda values: with_values(small(), values))


def test_each_combination_is_a_cell_and_the_seed_changes_last():
    each = made({"model.latent_dim": [4, 2], "seed": [0, 1]})
    assert [cell.name for cell in each] == [
        "latent_dim=4,seed=0",
        "latent_dim=2,seed=0",
        "latent_dim=4,seed=1",
        "latent_dim=2,seed=1",
    ]
    assert [(cell.config.model.latent_dim, cell.config.seed) for cell in each] == [
        (4, 0),
        (2, 0),
        (4, 1),
        (2, 1),
    ]
    assert each[0].group == {"model.latent_dim": 4}
    assert small().model.latent_dim == 8  # the settings that were given stay


def test_parts_and_tuples_have_names_that_a_folder_can_have():
    each = made({"model.coder.hidden": [(64, 32), ()], "model.corruption": [None, Masking()]})
    assert [cell.name for cell in each] == [
        "hidden=64-32,corruption=None",
        "hidden=64-32,corruption=Masking",
        "hidden=,corruption=None",
        "hidden=,corruption=Masking",
    ]


def test_settings_that_end_alike_keep_their_whole_names():
    grid = {"evaluation.batch_size": [10], "batch_size": [20]}
    assert [cell.name for cell in made(grid)] == ["evaluation.batch_size=10,batch_size=20"]


def test_commas_in_parentheses_belong_to_a_value():
    assert split_values("model.latent_dim=32,16") == ("model.latent_dim", ["32", "16"])
    assert split_values("config.seed=1") == ("seed", ["1"])
    assert split_values("a=(1,2),(3,)") == ("a", ["(1,2)", "(3,)"])


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({}, "sweep: is empty"),
        ({"seed": []}, "sweep: seed has no values"),
        ({"seed": [1, 1]}, "sweep: two combinations are the same"),
        ({"model.latent_dims": [1]}, "did you mean model.latent_dim?"),
        ({"model.latent_dim": ["four"]}, "config.model.latent_dim"),
        ({"batch_size": [0]}, "batch_size=0: must be at least 1"),
    ],
)
def test_a_bad_grid_is_refused(grid, said):
    with pytest.raises(InputError) as error:
        made(grid)
    assert said in str(error.value)
