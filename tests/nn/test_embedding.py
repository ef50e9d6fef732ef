"""Vectors by number against products with one-hot vectors."""

import jax
import jax.numpy as jnp
import numpy as np

from aejax.nn.embedding import embedded

TABLE = np.random.RandomState(0).normal(size=(11, 5)).astype(np.float32)
SYMBOL = np.random.RandomState(1).randint(-1, 11, size=(4, 7))


def test_rows_are_the_tables_and_zeros_where_there_is_no_symbol():
    found = np.asarray(embedded(TABLE, SYMBOL))
    for place, symbol in np.ndenumerate(SYMBOL):
        np.testing.assert_array_equal(found[place], TABLE[symbol] if symbol >= 0 else np.zeros(5))
    assert (SYMBOL < 0).any()


def test_the_gradient_adds_up_what_each_symbol_was_given():
    slope = np.random.RandomState(2).normal(size=(4, 7, 5)).astype(np.float32)
    expected = np.zeros((11, 5))
    for place, symbol in np.ndenumerate(SYMBOL):
        if symbol >= 0:
            expected[symbol] += slope[place]
    gradient = jax.jit(jax.grad(lambda table: jnp.vdot(embedded(table, SYMBOL), slope)))
    np.testing.assert_allclose(gradient(TABLE), expected, rtol=1e-5, atol=1e-6)
    assert "scatter" not in gradient.lower(TABLE).compile().as_text()


def test_in_sixteen_bits_rows_and_gradient_keep_their_type():
    table = TABLE.astype(jnp.bfloat16)
    found, back = jax.vjp(lambda table: embedded(table, SYMBOL), table)
    assert found.dtype == back(found)[0].dtype == jnp.bfloat16
