"""Meshes and both parallel styles: the same run, only the collectives that were meant."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from aejax.config import Config, Mesh
from aejax.errors import InputError
from aejax.mesh import make_mesh
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Convolutional, Dense, Recurrent, Transformer
from aejax.optimizer import Adam, Sgd
from aejax.training import sharding
from aejax.training.dry_run import compile_step
from aejax.training.setup import setup
from tests.training import toys
from tests.training.runs import losses, small

COLLECTIVE = re.compile(
    r"= .*? (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)


def wide(**changes) -> Config:
    """64-256-32-256-64 with moments: large enough to be dealt out, random enough to notice."""
    model = Autoencoder(latent_dim=32, bottleneck=Plain("relu"))
    model.coder.hidden = (256,)
    settings = {"model": model, "duration": "50 steps", "log_every": 1}
    return small(**{**settings, "optimizer": Adam(learning_rate=1e-3), **changes})


@pytest.fixture(scope="module")
def alone() -> list[float]:
    config = wide()
    config.data.prepare.shift = 1  # something is drawn in every step
    return losses(config, 50)[0]


@pytest.mark.parametrize(
    ("mesh", "parallel"),
    [((8, 1, 1), "pjit"), ((4, 2, 1), "pjit"), ((2, 2, 2), "pjit"), ((8, 1, 1), "pmap")],
)
def test_every_layout_follows_the_run_on_one_device(alone, mesh, parallel):
    config = wide(mesh=Mesh(*mesh), parallel=parallel)
    config.data.prepare.shift = 1
    followed, _ = losses(config, 50, devices=8)
    np.testing.assert_allclose(followed, alone, rtol=1e-5)


def collectives(config: Config, sources=None) -> list[str]:
    text = compile_step(setup(config, sources)).as_text()
    return [match[1] for line in text.splitlines() if (match := COLLECTIVE.search(line))]


@pytest.mark.parametrize("parallel", ["pjit", "pmap"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_data_parallelism_costs_one_all_reduce(parallel, micro_batches):
    found = collectives(wide(parallel=parallel, micro_batches=micro_batches))
    assert found == ["all-reduce"]


def test_that_all_reduce_carries_gradients_and_scalars_alone():
    run_setup = setup(wide())
    text = compile_step(run_setup).as_text()
    (line,) = [line for line in text.splitlines() if COLLECTIVE.search(line)]
    shapes = re.findall(r"f32\[([\d,]*)\]", line.split(" all-reduce")[0])
    sizes = sorted(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)
    parameters = sorted(leaf.size for leaf in jax.tree.leaves(run_setup.state.params))
    assert [size for size in sizes if size > 1] == parameters


def recurrent(**changes) -> Config:
    """LSTM over the lines of a digit; with Sgd, nearly all FLOPs are those of the gradient."""
    model = Autoencoder(coder=Recurrent(hidden=(32,)), latent_dim=8)
    settings = {"model": model, "optimizer": Sgd(learning_rate=1e-3), "batch_size": 512}
    return small(**{**settings, **changes})


@pytest.fixture(scope="module")
def flops_alone() -> float:
    run_setup = setup(recurrent(), devices=jax.devices()[:1])
    return compile_step(run_setup).cost_analysis()["flops"]


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (4, 2, 1)], ids=str)
def test_a_recurrent_step_is_shared_with_one_sum_of_the_gradient(shape, micro_batches, flops_alone):
    compiled = compile_step(setup(recurrent(mesh=Mesh(*shape), micro_batches=micro_batches)))
    share = compiled.cost_analysis()["flops"] / flops_alone
    # XLA counts the body of the loop over micro-batches once.
    assert 8 * micro_batches * share == pytest.approx(1, rel=0.1)
    lines = compiled.as_text().splitlines()
    found = [match[1] for line in lines if (match := COLLECTIVE.search(line))]
    assert found.count("all-reduce") == 1
    # Beside it only what fsdp dealt out is gathered, once.
    gathered = found.count("all-gather")
    assert len(found) == 1 + gathered and gathered <= (0 if shape[1] == 1 else 9)


@pytest.mark.parametrize(
    ("toy", "parallel", "count"),
    [
        (toys.sparse, "pjit", 2),  # the mean, then gradients and scalars
        (toys.sparse, "pmap", 3),  # and what the mean's derivative sums over devices
        (toys.normalised, "pjit", 5),  # two means ahead, two back, then gradients and scalars
        (toys.normalised, "pmap", 5),
    ],
)
def test_means_over_the_batch_cost_what_is_listed(toy, parallel, count):
    assert collectives(wide(model=toy(), parallel=parallel)) == ["all-reduce"] * count


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 4, 1)])
def test_fsdp_stores_its_share_of_parameters_and_moments(shape):
    run_setup = setup(wide(mesh=Mesh(*shape)))
    state = run_setup.init()
    stored = whole = 0
    for leaf in jax.tree.leaves((state.params, state.opt_state)):
        stored += leaf.addressable_shards[0].data.nbytes
        whole += leaf.nbytes
    assert stored / whole <= 1 / shape[1] + 0.05
    # And it stays so: the step gives back what it was given.
    feed = run_setup.open_feed()
    step = run_setup.compile(feed)
    numbers = [
        jax.device_put(v, run_setup.replicated) for v in (np.int32(0), np.int32(3), np.int32(1))
    ]
    after, _ = step(state, feed.at(0).arrays, *numbers)
    for leaf, wanted in zip(jax.tree.leaves(after), jax.tree.leaves(run_setup.state), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)


def test_rules_by_path_win_and_moments_follow():
    config = wide(mesh=Mesh(2, 2, 2, rules=("encoder/.*/weight=fsdp tensor", ".*bias=-")))
    state = setup(config).state
    specs = {name: leaf.sharding.spec for name, leaf in sharding.flatten(state).items()}
    assert specs["params/encoder/layers/0/weight"] == PartitionSpec("fsdp", "tensor")
    moments = specs["opt_state/0/mu/encoder/layers/0/weight"]
    assert moments == PartitionSpec("fsdp", "tensor")
    assert specs["opt_state/0/nu/decoder/layers/1/bias"] == PartitionSpec(None)
    assert not any(specs["step"])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (("nothing=fsdp",), "matches no parameter"),
        (("encoder/layers/0/weight=fsdp",), "has 1 axes; .* has 2 dimensions"),
        (("encoder/layers/1/bias=data",), "a dimension of 32 .* config.mesh.data=3"),
        (("(=fsdp",), r"config.mesh.rules: '\(=fsdp'"),
        (("a=rows",), "there is no 'rows'"),
    ],
)
def test_rules_that_cannot_be_are_refused(rules, message):
    config = wide(batch_size=60, mesh=Mesh(3, 2, 1))
    config.mesh.rules = rules  # as a flag sets it
    with pytest.raises(InputError, match=message):
        setup(config, devices=jax.devices()[:6])


def test_pmap_refuses_other_axes():
    with pytest.raises(InputError, match="config.parallel=pmap with config.mesh.fsdp=2"):
        setup(wide(mesh=Mesh(4, 2, 1), parallel="pmap"))


def exchanged(config: Config) -> int:
    """Numbers that the collectives of one step give to a device."""
    total = 0
    for line in compile_step(setup(config)).as_text().splitlines():
        if match := COLLECTIVE.search(line):
            given = line.split(" = ")[1].split(f" {match[1]}")[0]
            shapes = re.findall(r"f32\[([\d,]*)\]", given)
            total += sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)
    return total


@pytest.mark.parametrize(
    ("coder", "share"),
    [
        (Dense(hidden=(256, 128, 64)), 0.65),
        (Convolutional(channels=(32, 64), hidden=(128,)), 0.15),
        (Convolutional(channels=(32, 64)), 0.25),
        (Transformer(patch=2, heads=8, encoder_layout="af", decoder_layout="af"), 0.65),
    ],
    ids=["dense", "convolutional", "convolutional without hidden layers", "transformer"],
)
def test_a_coders_own_rules_spare_exchanges_where_they_divide(monkeypatch, coder, share):
    config = wide(model=Autoencoder(coder=coder, latent_dim=32), mesh=Mesh(1, 1, 8))
    with_rules = exchanged(config)
    monkeypatch.setattr(type(coder), "sharding_rules", ())
    assert with_rules < share * exchanged(config)


def test_a_coders_own_rules_give_way():
    own = Dense.sharding_rules
    name, shape = "encoder/layers/0/weight", (30, 1024)
    mesh = make_mesh(Mesh(1, 2, 4), jax.devices(), 64, 1)
    spec = sharding.spec_of
    assert spec(name, (32, 1024), mesh, own=own) == PartitionSpec("tensor", "fsdp")
    # 30 units do not divide over 4 devices: the default.
    assert spec(name, shape, mesh, own=own) == spec(name, shape, mesh)
    assert spec(name, (32, 1024), mesh, (".*=- tensor",), own) == PartitionSpec(None, "tensor")
    # A small one is not gathered each time, and an image's kernel never lies over tensor.
    assert spec(name, (4, 16), mesh, own=own) == PartitionSpec("tensor", None)
    own, whole = Convolutional().sharding_rules, PartitionSpec(None, None, None, None)
    for shape in ((3, 3, 1, 32), (3, 3, 32, 33)):
        assert spec("encoder/stages/0/kernel", shape, mesh, own=own) == whole
