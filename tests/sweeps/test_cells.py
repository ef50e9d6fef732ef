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


def test_settings_that_change_together_are_one_axis():
    together = ("batch_size", "model.coder.activation")
    each = made({together: [(32, "relu"), (16, "tanh")], "seed": [0, 1]})
    assert [cell.name for cell in each] == [
        "batch_size=32,activation=relu,seed=0",
        "batch_size=16,activation=tanh,seed=0",
        "batch_size=32,activation=relu,seed=1",
        "batch_size=16,activation=tanh,seed=1",
    ]
    cell = each[3]
    assert cell.values == {"batch_size": 16, "model.coder.activation": "tanh", "seed": 1}
    assert cell.group == {"batch_size": 16, "model.coder.activation": "tanh"}
    assert (cell.config.batch_size, cell.config.model.coder.activation) == (16, "tanh")
    swapped = made({"seed": [0], together[::-1]: [("relu", 32)]})[0]
    assert swapped.name == "seed=0,activation=relu,batch_size=32"


def test_a_part_is_set_before_its_own_settings():
    part = Masking(rate=0.5)
    together = ("model.corruption.rate", "model.corruption")
    each = made({together: [(0.25, part), (0.75, part)]})
    assert [cell.config.model.corruption for cell in each] == [Masking(rate=0.25), Masking(0.75)]
    assert part == Masking(rate=0.5)  # what was given stays


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
    assert split_values("a&config.b=(1,2)&x,(3,)&y") == (
        ("a", "b"),
        [("(1,2)", "x"), ("(3,)", "y")],
    )
    # Options of a source are no values that change together.
    assert split_values("data.source=f:X?a=1&b=2,y") == ("data.source", ["f:X?a=1&b=2", "y"])


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=1,", "a&=1&2", "a&b=1&", "a&b=1&2,"])
def test_a_text_without_settings_or_values_is_refused(text):
    with pytest.raises(InputError, match="must be SETTING=VALUE,VALUE"):
        split_values(text)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({}, "sweep: is empty"),
        ({"seed": []}, "sweep: seed has no values"),
        ({"seed": [1, 1]}, "sweep: two combinations are the same"),
        ({("seed", "batch_size"): []}, "sweep: seed&batch_size has no values"),
        ({("seed", "batch_size"): [(1, 2), (3,)]}, "seed&batch_size=3: must be 2 values"),
        ({("seed", "batch_size"): ["10"]}, "seed&batch_size=10: must be 2 values"),
        ({("seed", "batch_size"): [(1, 2)], "seed": [1]}, "seed stands twice; must stand once"),
        ({("seed", "seed"): [(1, 2)]}, "seed stands twice; must stand once"),
        ({("seed", "batch_size"): [(1, 2), (1, 2)]}, "two combinations are the same"),
        ({"model.latent_dims": [1]}, "did you mean model.latent_dim?"),
        ({"model.latent_dim": ["four"]}, "config.model.latent_dim"),
        ({"batch_size": [0]}, "batch_size=0: must be at least 1"),
    ],
)
def test_a_bad_grid_is_refused(grid, said):
    with pytest.raises(InputError) as error:
        made(grid)
    assert said in str(error.value)
