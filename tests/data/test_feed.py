"""The resident feed gives the order's rows, whatever block a step falls into."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aejax.data import feed, order
from aejax.data.sources.base import Arrays
from aejax.data.streaming import Streaming

X = np.random.RandomState(0).randint(0, 256, (37, 4, 3, 1)).astype(np.uint8)
LABEL = np.arange(37, dtype=np.int64) % 5
SEED = 11
WHOLE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 40 positions, so that they are used up."""
    monkeypatch.setattr(feed, "_POSITIONS", 40)


def opened(shape=(2, 4), steps=100, label=LABEL, sharding=WHOLE) -> feed.Resident:
    data = feed.resident(Arrays(X, label, 255.0), WHOLE)
    return feed.Resident(data, len(X), SEED, shape, steps, sharding)


def rows_of(resident: feed.Resident, step: int) -> feed.Raw:
    block = resident.at(step)
    assert block.first <= step < block.last
    assert block.arrays.shape == (resident.capacity, *resident.shape)
    offset = jnp.int32(step - block.first)
    return jax.device_get(jax.jit(resident.gather)(resident.data, block.arrays, offset))


def assert_right(raw: feed.Raw, step: int, shape=(2, 4)) -> None:
    size = shape[0] * shape[1]
    index = order.examples(SEED, len(X), step * size, (step + 1) * size).reshape(shape)
    assert np.array_equal(raw.index, index)
    assert raw.x.dtype == np.uint8
    assert np.array_equal(raw.x, X[index].reshape(*shape, -1))
    assert raw.label is not None and raw.label.dtype == np.int32
    assert np.array_equal(raw.label, LABEL[index])


def test_the_next_block_is_on_its_way_before_it_is_asked_for(small_blocks, monkeypatch):
    asked, drawn, draw = [], threading.Event(), order.examples

    def examples(seed, rows, start, stop):
        asked.append((start, stop))
        if start == 40:
            drawn.set()
        return draw(seed, rows, start, stop)

    monkeypatch.setattr(order, "examples", examples)
    resident = opened(steps=10)
    resident.at(0)
    assert drawn.wait(60)
    resident.at(5)
    resident.close()
    assert asked == [(0, 40), (40, 80)]


@pytest.mark.parametrize("first", [0, 3, 17])
def test_every_step_gets_its_rows_also_when_a_block_is_used_up(small_blocks, first):
    resident = opened()
    assert resident.capacity == 5
    blocks = set()
    for step in range(first, first + 13):
        assert_right(rows_of(resident, step), step)
        blocks.add(resident.at(step).first)
    assert blocks == {first, first + 5, first + 10}


def test_steps_may_be_asked_for_in_any_order(small_blocks):
    resident = opened()
    for step in (20, 3, 24, 4, 7, 8, 2, 99):
        assert_right(rows_of(resident, step), step)


def test_a_block_is_sent_once_and_kept_until_it_is_used_up(small_blocks):
    resident = opened()
    block = resident.at(6)
    assert all(resident.at(step) is block for step in range(6, 11))
    assert resident.at(11) is not block


@pytest.mark.parametrize(
    ("shape", "steps", "capacity"),
    [((1, 8), 3, 3), ((1, 8), 100, 5), ((2, 4), 100, 5), ((8, 8), 100, 1), ((1, 1), 1000, 40)],
)
def test_all_blocks_have_one_size(small_blocks, shape, steps, capacity):
    resident = opened(shape, steps)
    assert resident.capacity == capacity
    for step in (0, steps - 1):
        assert_right(rows_of(resident, step), step, shape)


def test_rows_without_labels_stay_so():
    resident = opened(label=None)
    assert resident.data.label is None and resident.data.length is None
    assert rows_of(resident, 2).label is None


def test_the_split_lies_on_the_devices_as_stored():
    data = feed.resident(Arrays(X, LABEL, 255.0), WHOLE)
    assert data.x.dtype == np.uint8 and np.array_equal(data.x, X.reshape(37, -1))
    assert data.label.dtype == np.int32 and np.array_equal(data.label, LABEL)


def test_rows_that_are_dealt_out_over_devices_are_the_same_rows(small_blocks):
    mesh = Mesh(np.asarray(jax.devices()[:4]), ("data",), axis_types=(AxisType.Auto,))
    batched_apply = NamedSharding(mesh, PartitionSpec(None, None, "data"))
    resident = opened(sharding=batched_apply)
    resident.data = jax.device_put(resident.data, NamedSharding(mesh, PartitionSpec()))
    block = resident.at(4)
    assert block.arrays.sharding == batched_apply
    take = jax.jit(resident.gather)
    raw = jax.device_get(take(resident.data, block.arrays, jnp.int32(2)))
    assert_right(raw, 6)


@pytest.mark.parametrize(
    ("shape", "reading"),
    [((8, 8, 1), (16, 256)), ((2048, 2048, 4), (4, 4)), ((2**15, 2**15), (2, 2))],
)
def test_of_large_rows_fewer_are_read_ahead(shape, reading):
    x = np.broadcast_to(np.uint8(0), (100, *shape))
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))
    batched_apply = NamedSharding(mesh, PartitionSpec(None, None, "data"))
    stream = Streaming(Arrays(x, None, 255.0), SEED, (1, 16), 1000, batched_apply)
    assert stream.reading == reading
    stream.close()


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x.astype(">f4"),
        lambda x: x.astype(">f8"),
        lambda x: np.asfortranarray(x),
        lambda x: x[::-1].copy()[::-1],
        lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
        lambda x: x.astype(np.int64),
        lambda x: x.astype(">i2"),
        lambda x: x.astype(np.int8),
        lambda x: np.broadcast_to(x, x.shape),
    ],
    ids=[
        "big",
        "big_double",
        "fortran",
        "reversed",
        "strided",
        "int64",
        "big_int16",
        "int8",
        "read",
    ],
)
def test_any_byte_order_layout_and_width_gives_the_same_rows(layout):
    x = np.random.RandomState(0).randint(-9, 100, (20, 3, 4)).astype(np.float32)
    source = Arrays(layout(x), None, None)
    assert source.spec == Arrays(x, None, None).spec
    assert np.array_equal(feed.resident(source, WHOLE).x, x.reshape(20, -1))
    index = np.array([3, 19, 0])
    assert np.array_equal(source[index].x, x[index]) and source[index].x.dtype == np.float32


def test_a_memory_map_stays_one(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert Arrays(mapped, None, 255.0).x is mapped
    assert np.array_equal(feed.resident(Arrays(mapped, None, 255.0), WHOLE).x, X.reshape(37, -1))
