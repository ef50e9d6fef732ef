"""The initial parameters of LSTMs and GRUs."""

import re

import jax
import numpy as np
import pytest
from flax import nnx

from aejax.nn.recurrence import Gated


def made(cell: str, key: jax.Array) -> Gated:
    return Gated(cell, 3, 8, 5, positions=False, rngs=nnx.Rngs(key))


@pytest.mark.parametrize("cell, matrices", [("lstm", 4), ("gru", 3)])
def test_recurrent_matrices_are_orthogonal_each_drawn_alone(cell, matrices):
    recurrent = np.asarray(made(cell, jax.random.key(0)).recurrent[...])
    each = np.split(recurrent, matrices, axis=1)
    for matrix in each:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(8), atol=1e-6)
    assert all(np.abs(matrix - each[0]).max() > 0.1 for matrix in each[1:])


def test_no_batch_of_decompositions_which_may_wait_for_ever_on_a_cpu():
    lowered = jax.jit(lambda key: nnx.state(made("lstm", key))).lower(jax.random.key(0))
    calls = [line for line in lowered.as_text().split("\n") if "lapack_sgeqrf" in line]
    assert calls and all(re.search(r"num_batch_dims = \"0\"", line) for line in calls)
