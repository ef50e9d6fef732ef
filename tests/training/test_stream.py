"""The stream of deformed images: example epoch * rows + row, whatever trains on it, and how."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import aejax
from aejax.config import Config, Data, Mesh, Prepare
from aejax.data.deform import deform
from aejax.data.sources.base import Arrays
from aejax.errors import InputError
from aejax.models import PerRow
from aejax.models.interfaces import Trainable
from aejax.training.dispatch import dispatch
from aejax.training.setup import setup
from tests.training.runs import small, train
from tests.training.test_mesh import collectives, wide

ROWS, SEED = 40, 3
SOURCE = Arrays(np.random.RandomState(0).randint(0, 256, (ROWS, 12, 9, 1), np.uint8), None, 255.0)


@dataclasses.dataclass
class Seen(Trainable):
    """A model that keeps the rows of its last batch, with their numbers."""

    def init(self, rngs, batch):
        return SeenModule(batch)


class SeenModule(nnx.Module):
    def __init__(self, batch):
        self.weight = nnx.Param(jnp.zeros(()))
        self.x = PerRow(jnp.zeros(batch.x.shape))
        self.index = PerRow(jnp.zeros(len(batch.x), jnp.int32))

    def loss(self, batch, context=None):
        if context is not None:
            self.x[...], self.index[...] = batch.x, batch.index
        return self.weight[...] * jnp.mean(batch.x), {}


def stream(steps: range, devices: int = 1, batch_size: int = 16, **changes) -> dict:
    """{(epoch, row): image} of these steps; a run that begins with a later one has gone on."""
    data = Data(feed=changes.pop("feed", "resident"))
    data.prepare = Prepare(**{"scale": False, "deform": 1.0, **changes.pop("prepare", {})})
    config = Config(
        model=Seen(), data=data, batch_size=batch_size, seed=SEED, duration="30", **changes
    )
    run = setup(config, (SOURCE, SOURCE), devices=jax.devices()[:devices])
    feed, found = run.open_feed(), {}
    put = functools.partial(jax.device_put, device=run.replicated)
    compiled, state = run.compile(feed), run.init()
    state = dataclasses.replace(state, step=put(np.int32(steps.start)))
    for step in steps:
        block = feed.at(step)
        numbers = put(np.int32(block.first)), put(np.int32(1)), put(np.int32(1))
        state, _ = compiled(state, block.arrays, *numbers)
        rows = jax.device_get(state.model_state["rows"])
        for place, (index, x) in enumerate(zip(rows["index"], rows["x"], strict=True)):
            found[(step * batch_size + place) // ROWS, int(index)] = x
    feed.close()
    return found


@pytest.fixture(scope="module")
def whole() -> dict:
    """The first 160 examples, 16 at a time on one device: four epochs."""
    return stream(range(10))


def test_every_row_is_another_image_in_each_epoch(whole):
    assert set(whole) == {(epoch, row) for epoch in range(4) for row in range(ROWS)}
    for row in range(ROWS):
        images = [whole[epoch, row].tobytes() for epoch in range(4)]
        assert len({*images, np.float32(SOURCE.x[row]).tobytes()}) == 5


def test_an_example_is_a_function_of_seed_epoch_and_row(whole):
    base = jax.random.fold_in(jax.random.key(SEED), jnp.uint32(2**32 - 1))
    for epoch, row in ((0, 0), (0, 39), (1, 7), (3, 22)):
        key = jax.random.fold_in(jax.random.fold_in(base, epoch), row)
        wanted = deform(jnp.asarray(SOURCE.x[row : row + 1]), key[None], 1.0, 255.0)[0]
        np.testing.assert_allclose(whole[epoch, row], wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "changes"),
    [
        (range(10), {"devices": 8}),
        (range(10), {"devices": 8, "mesh": Mesh(2, 4, 1)}),
        (range(10), {"devices": 8, "parallel": "pmap"}),
        (range(20), {"batch_size": 8}),
        (range(4), {"batch_size": 40}),
        (range(10), {"feed": "streaming"}),
        (range(10), {"feed": "streaming", "devices": 8, "parallel": "pmap"}),
        (range(10), {"micro_batches": 2}),
        (range(10), {"micro_batches": 2, "devices": 8}),
        (range(6, 10), {}),  # has gone on
        (range(6, 10), {"feed": "streaming", "devices": 2}),
    ],
    ids=str,
)
def test_an_example_has_the_same_bits_however_it_is_fed(whole, steps, changes):
    found = stream(steps, **changes)
    assert len(found) == len(steps) * changes.get("batch_size", 16)
    for which, image in found.items():
        assert image.tobytes() == whole[which].tobytes(), which


def test_other_augmentation_is_drawn_by_the_step_on_top(whole):
    found = stream(range(5), prepare={"flip": True})
    mirrored = [np.array_equal(x, whole[which][:, ::-1]) for which, x in found.items()]
    same = [np.array_equal(x, whole[which]) for which, x in found.items()]
    assert sum(mirrored) + sum(same) == 80 and 20 < sum(mirrored) < 60


@pytest.mark.parametrize("parallel", ["pjit", "pmap"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_stream_costs_no_exchange(parallel, micro_batches):
    config = wide(parallel=parallel, micro_batches=micro_batches)
    config.data.prepare.deform = 1.0
    assert collectives(config) == ["all-reduce"]


def test_a_stopped_run_ends_with_the_same_numbers(tmp_path):
    config = small(duration="60 steps")
    config.data.prepare.deform = 1.0
    whole = train(config, tmp_path / "whole")
    train(dataclasses.replace(config, duration="30 steps"), tmp_path / "cut")
    assert train(config, tmp_path / "cut").metrics == whole.metrics
    loaded = aejax.load(str(tmp_path / "cut"))
    rows = np.arange(2 * 64, dtype=np.uint8).reshape(2, 8, 8, 1) % 17
    assert np.array_equal(loaded.prepare(rows), np.float32(rows) / 16)  # nothing is deformed


def test_a_run_beyond_the_count_of_examples_is_refused():
    config = small(batch_size=64, duration=str(2**26))
    config.data.prepare.deform = 0.5
    setup(config)
    config.duration = str(2**26 + 1)
    said = "config.duration=67108865: 67108865 steps; with config.data.prepare.deform=0.5 must be"
    with pytest.raises(InputError, match=f"{said} at most 67108864, "):
        setup(config)
    config.data.prepare.deform = 0.0
    setup(config)


@pytest.mark.parametrize("step", [2**27 - 1, 2**27, 2**28 - 1])
def test_the_epoch_is_exact_up_to_the_last_of_2_to_the_32_examples(step):
    data = Data(feed="resident", prepare=Prepare(scale=False, deform=1.0))
    config = Config(model=Seen(), data=data, batch_size=16, seed=SEED, duration=str(2**28))
    run = setup(config, (SOURCE, SOURCE), devices=jax.devices()[:1])

    def prepare(micro_batch, context):
        """Tells the keys: 24 of their bits are exact in float32."""
        bits = jax.random.key_data(micro_batch.stream_keys)[:, 1] % 2**24
        return jnp.broadcast_to(bits[:, None, None, None], (16, 12, 9, 1)).astype(jnp.float32)

    feed = run.open_feed()
    one = jax.jit(dispatch(dataclasses.replace(run.step, prepare=prepare)))
    state = dataclasses.replace(run.init(), step=jnp.int32(step))
    numbers = np.int32(step), np.int32(1), np.int32(1)
    state, _ = one(state, run.constants(feed), feed.at(0).arrays, *numbers)
    feed.close()
    base = jax.random.fold_in(jax.random.key(SEED), jnp.uint32(2**32 - 1))
    rows = jax.device_get(state.model_state["rows"])
    for place, (index, x) in enumerate(zip(rows["index"], rows["x"], strict=True)):
        epoch = (step * 16 + place) // ROWS
        key = jax.random.fold_in(jax.random.fold_in(base, epoch), index)
        assert x[0, 0, 0] == int(jax.random.key_data(key)[1]) % 2**24
