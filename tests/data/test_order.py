"""The order of examples: every one once an epoch, and a pure function of seed and position."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from aejax.data import order

SIZES = [(1, 1), (10, 3), (10, 10), (7, 5), (1437, 256), (100, 99), (64, 64), (5, 12)]


@pytest.mark.parametrize(("rows", "batch_size"), SIZES)
def test_every_example_comes_once_an_epoch_though_batches_straddle(rows, batch_size):
    steps = -(-4 * rows // batch_size)
    batches = [
        order.examples(3, rows, step * batch_size, (step + 1) * batch_size) for step in range(steps)
    ]
    assert all(batch.shape == (batch_size,) for batch in batches)
    flat = np.concatenate(batches)
    for epoch in range(4):
        assert sorted(flat[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@pytest.mark.parametrize(("rows", "batch_size"), SIZES)
def test_any_cutting_gives_the_same_order(rows, batch_size):
    stop = 4 * rows + 3
    whole = order.examples(5, rows, 0, stop)
    assert whole.dtype == np.int32 and whole.shape == (stop,)
    for size in {1, batch_size, rows, 2 * rows + 1, stop}:
        starts = range(0, stop, size)
        parts = {
            start: order.examples(5, rows, start, min(start + size, stop))
            for start in reversed(starts)  # nothing depends on what was asked before
        }
        assert np.array_equal(np.concatenate([parts[start] for start in starts]), whole)


def test_nothing_is_asked_for_nothing():
    for start in (0, 5, 10, 25):
        empty = order.examples(0, 10, start, start)
        assert empty.shape == (0,) and empty.dtype == np.int32


def test_a_caller_that_writes_into_its_batch_spoils_no_other():
    first = order.examples(1, 10, 0, 10)
    before = first.copy()
    first[:] = -1
    assert np.array_equal(order.examples(1, 10, 0, 10), before)


def test_seeds_and_epochs_have_orders_of_their_own():
    orders = [order.examples(seed, 100, 0, 500).reshape(5, 100) for seed in range(5)]
    each = {tuple(epoch) for epochs in orders for epoch in epochs}
    assert len(each) == 25
    assert len({tuple(order.examples(seed, 50, 0, 50)) for seed in (0, 1, 2**31, 2**32 - 1)}) == 4


def test_every_place_is_as_likely_for_every_example():
    rows, epochs = 8, 4000
    orders = order.examples(0, rows, 0, rows * epochs).reshape(epochs, rows)
    counts = np.stack([np.bincount(place, minlength=rows) for place in orders.T])
    assert np.abs(counts - epochs / rows).max() < 5 * np.sqrt(epochs / rows)


def test_threads_do_not_disturb_each_other():
    def epochs(seed):
        return [order.examples(seed, 3000, 3000 * e, 3000 * (e + 1)).tolist() for e in range(20)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(epochs, [seed % 4 for seed in range(16)]))
    for seed in range(4):
        assert all(each == epochs(seed) for each in found[seed::4])


def test_the_order_is_this_one_for_ever():
    """A run that is continued years later must see the examples that it has not seen yet."""
    assert order.examples(0, 10, 0, 25).tolist() == (
        [3, 7, 6, 4, 1, 0, 2, 8, 5, 9] + [9, 4, 0, 8, 1, 5, 3, 2, 6, 7] + [4, 2, 9, 1, 8]
    )
    straddling = order.examples(42, 1437, 1430, 1445)
    assert straddling.tolist() == (
        [761, 902, 803, 17, 856, 685, 906] + [1079, 703, 458, 1069, 1181, 589, 997, 1278]
    )
    for found, digest in (
        (order.examples(42, 1437, 0, 10_000), "7ea34b1c061d2898faf9a3c7ac3a30ab"),
        (order.examples(2**32 - 1, 60_000, 59_000, 180_500), "ad409cc947e6f0c374ef8ad7a93b4f31"),
    ):
        assert hashlib.sha256(found.astype("<i4").tobytes()).hexdigest().startswith(digest)


@pytest.mark.parametrize(
    ("count", "batch_size"), [(10, 4), (8, 4), (1, 4), (4, 4), (5, 1), (360, 1000)]
)
def test_padded_batches_hold_every_row_once_and_mark_what_fills(count, batch_size):
    index, mask = order.batches(count, batch_size)
    number = -(-count // batch_size)
    assert index.shape == mask.shape == (number, batch_size)
    assert index.dtype == np.int32 and mask.dtype == np.float32
    assert index[mask == 1].tolist() == list(range(count))
    assert not index[mask == 0].any() and set(np.unique(mask)) <= {0.0, 1.0}
    assert mask.any(axis=1).all()  # no batch of nothing
