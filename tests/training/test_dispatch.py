"""Inner loops of fixed length: the same bits and rows, and which runs take them."""

import functools

import jax
import numpy as np

from aejax.models import Autoencoder
from aejax.training.dispatch import dispatch, inner_steps
from aejax.training.setup import Setup, setup
from tests.training.runs import small


def _setup(**changes) -> Setup:
    return setup(small(**changes), devices=jax.devices()[:1])


def _trained(run: Setup, inner: int, parts: list[int]):
    """The state, and all rows, after dispatches of so many steps, with a log row every 5 steps."""
    feed, state, rows = run.open_feed(), run.init(), []
    constants = run.constants(feed)
    compiled = jax.jit(dispatch(run.step, inner), donate_argnums=0)
    for steps in parts:
        block = feed.at(int(state.step))
        numbers = np.int32(block.first), np.int32(steps), np.int32(5)
        state, report = compiled(state, constants, block.arrays, *numbers)
        rows.append(np.asarray(report.rows))
    feed.close()
    return jax.device_get(state), rows


def test_inner_loops_change_no_bit():
    """Turns of 3 steps in rows of 5: some are left over, and dispatches end within a row."""
    run, parts = _setup(), [12, 1, 7]
    expected, expected_rows = _trained(run, 1, parts)
    actual, rows = _trained(run, 3, parts)
    assert actual.step == sum(parts)
    np.testing.assert_array_equal(rows, expected_rows)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_steps_of_inner_loops_have_a_fixed_number():
    """A fori_loop of fixed length is a scan in the jaxpr; here all others are whiles."""
    run = _setup()
    constants, block = run.abstract_inputs()
    number = jax.ShapeDtypeStruct((), np.int32)
    arguments = run.state, constants, block, number, number, number
    plain, nested = (str(jax.make_jaxpr(dispatch(run.step, inner))(*arguments)) for inner in (1, 7))
    assert "length=7" in nested
    assert "length=7" not in plain


def test_long_runs_of_small_models_on_a_gpu_take_inner_loops():
    find = functools.partial(inner_steps, _setup().step)
    assert find("gpu", 100_000) == 16
    assert find("gpu", 99_999) == find("cpu", 10**7) == find("tpu", 10**7) == 1
    large = _setup(model=Autoencoder(latent_dim=10_000)).step
    assert inner_steps(large, "gpu", 10**7) == 1
