"""Micro-batches, bfloat16 and rematerialisation change the cost of a step, not what it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.errors import InputError
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense, Transformer
from aejax.models.penalties import Contractive
from aejax.optimizer import Sgd
from aejax.training.dry_run import compile_step
from aejax.training.setup import setup
from aejax.training.sharding import flatten
from tests.training.runs import small


def config(**changes):
    model = Autoencoder(
        coder=Dense(hidden=(96, 48)), latent_dim=16, bottleneck=Plain(activation="relu")
    )
    return small(**{"model": model, "optimizer": Sgd(learning_rate=1.0), **changes})


def test_what_a_gpus_kernel_of_attention_cannot_do_is_refused(monkeypatch):
    coder = Transformer(patch=2, heads=4)
    plain, contractive = (
        Autoencoder(coder=coder, latent_dim=4, penalty=penalty) for penalty in (None, Contractive())
    )
    for model in (plain, contractive):
        model.check_platform("cpu", "bfloat16", 8)
        model.check_platform("gpu", "float32", 8)
    plain.check_platform("gpu", "bfloat16", 4)
    with pytest.raises(ValueError, match=r"config.compute=bfloat16 .* must be float32"):
        contractive.check_platform("gpu", "bfloat16", 1)
    with pytest.raises(ValueError, match=r"config.mesh.tensor=8 does not divide .*heads=4"):
        plain.check_platform("gpu", "bfloat16", 8)

    def refused(model, *given):
        raise ValueError(f"config.{given}")

    monkeypatch.setattr(Autoencoder, "check_platform", refused)
    with pytest.raises(InputError, match=r"config.\('cpu', 'bfloat16', 1\)"):
        setup(config(model=contractive, compute="bfloat16"))


def first_update(settings, devices=1):
    """(gradient by name, loss) of the first step; parameters are float32 before and after."""
    run_setup = setup(settings, devices=jax.devices()[:devices])
    feed, state = run_setup.open_feed(), run_setup.init()
    before = {name: np.asarray(leaf) for name, leaf in flatten(state.params).items()}
    numbers = [
        jax.device_put(v, run_setup.replicated) for v in (np.int32(0), np.int32(1), np.int32(1))
    ]
    state, report = run_setup.compile(feed)(state, feed.at(0).arrays, *numbers)
    after = flatten(state.params)
    assert {str(leaf.dtype) for leaf in after.values()} == {"float32"}
    gradient = {name: before[name] - np.asarray(after[name]) for name in before}
    window = run_setup.state.window.unpack(np.asarray(report.rows)[0])
    return gradient, float(window.sums["loss"])


def difference(one, other) -> float:
    scale = max(np.abs(value).max() for value in other.values())
    return max(np.abs(one[name] - other[name]).max() for name in other) / scale


@pytest.mark.parametrize("micro_batches", [2, 8])
@pytest.mark.parametrize("parallel", ["pjit", "pmap"])
def test_micro_batches_give_the_large_batch(micro_batches, parallel):
    whole, loss = first_update(config())
    pieces, same = first_update(config(micro_batches=micro_batches, parallel=parallel), devices=8)
    assert same == pytest.approx(loss, rel=1e-6)
    assert difference(pieces, whole) < 1e-6


def test_micro_batches_need_less_memory():
    wide = Dense(hidden=(512, 512))
    sizes = []
    for micro_batches in (1, 8):
        model = Autoencoder(coder=wide, latent_dim=16)
        settings = config(model=model, batch_size=1024, micro_batches=micro_batches)
        run_setup = setup(settings, devices=jax.devices()[:1])
        sizes.append(compile_step(run_setup).memory_analysis().temp_size_in_bytes)
    assert sizes[1] < 0.5 * sizes[0]


def test_bfloat16_multiplies_in_bfloat16_and_keeps_float32_parameters():
    exact, loss = first_update(config())
    rounded, near = first_update(config(compute="bfloat16"))
    assert near == pytest.approx(loss, rel=1e-2) and near != loss
    assert 1e-4 < difference(rounded, exact) < 3e-2
    run_setup = setup(config(compute="bfloat16"), devices=jax.devices()[:1])
    constants, block = run_setup.abstract_inputs()
    step = jax.make_jaxpr(run_setup.step.__call__)(run_setup.state, constants, block, jnp.int32(0))
    products = [eqn for eqn in equations(step.jaxpr) if eqn.primitive.name == "dot_general"]
    assert len(products) >= 12
    assert {str(var.aval.dtype) for eqn in products for var in eqn.invars} == {"bfloat16"}


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "jaxpr"):
                    yield from equations(inner.jaxpr)
                elif hasattr(inner, "eqns"):
                    yield from equations(inner)


def test_remat_gives_the_same_gradient_and_computes_twice():
    plain, loss = first_update(config())
    settings = config()
    settings.model.coder.remat = True
    again, same = first_update(settings)
    assert same == pytest.approx(loss, rel=1e-6)
    assert difference(again, plain) < 1e-6
    run_setup = setup(settings, devices=jax.devices()[:1])
    constants, block = run_setup.abstract_inputs()
    step = jax.make_jaxpr(run_setup.step.__call__)(run_setup.state, constants, block, jnp.int32(0))
    names = [eqn.primitive.name for eqn in equations(step.jaxpr)]
    assert any("remat" in name or name == "checkpoint" for name in names)
