"""What modern bottlenecks need holds on any devices, in both styles, in micro-batches."""

import jax
import numpy as np
import pytest

import aejax
from aejax.optimizer import Adam
from aejax.runs import arrays
from aejax.training.setup import setup
from tests.training import modern
from tests.training.runs import train
from tests.training.test_contracts import (
    FARTHEST,
    SEED,
    SOURCE,
    assert_close,
    configuration,
    finite_differences,
    host,
    rows_of,
    updates,
)

TOYS = {
    "reconstruction": (modern.totalled, modern.totalled_loss),
    "target": (modern.targeted, modern.targeted_loss),
}


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("layout", FARTHEST, ids=str)
def test_gradient_is_that_of_the_global_batch(toy, layout):
    model, loss = TOYS[toy]
    for step, (params, gradient, sums, _) in enumerate(updates(model(), *layout, steps=2)):
        x = rows_of(step)
        assert sums["loss"] == pytest.approx(loss(params, x, SEED, step), rel=1e-5)
        assert_close(gradient, finite_differences(loss, params, x, SEED, step), 2e-5)


@pytest.fixture(scope="module")
def alone():
    return updates(modern.quantised(), *FARTHEST[0], steps=3)


@pytest.mark.parametrize("layout", FARTHEST, ids=str)
def test_a_codebook_moves_by_sums_over_the_global_batch(layout, alone):
    steps = updates(modern.quantised(), *layout, steps=3)
    state = host(setup(configuration(modern.quantised()), (SOURCE, SOURCE)).init().model_state)
    for step, (params, gradient, sums, after) in enumerate(steps):
        counts, entries = (state[f"other/code/{name}"] for name in ("counts", "sums"))
        wanted = modern.codebook_after(params, counts, entries, rows_of(step))
        np.testing.assert_allclose(after["other/code/counts"], wanted[0], rtol=1e-5)
        np.testing.assert_allclose(after["other/code/sums"], wanted[1], rtol=1e-4, atol=1e-6)
        assert_close(gradient, alone[step][1], 1e-5)
        assert sums["commitment"] == pytest.approx(alone[step][2]["commitment"], rel=1e-5)
        state = after
    assert (steps[0][3]["other/code/counts"] != steps[1][3]["other/code/counts"]).any()


def test_codes_with_a_shape_train_resume_encode_and_decode(tmp_path):
    config = configuration(modern.quantised(), optimizer=Adam(0.03))
    outcome = train(config, tmp_path, (SOURCE, SOURCE))
    model = aejax.load(str(tmp_path), parts=[modern.InPieces, modern.Codebook])
    assert model.code_shape == (3, 2)
    z = model.encode(SOURCE.x)
    entries = np.asarray(model.module.code.sums[...] / model.module.code.counts[...][:, None])
    assert {tuple(one) for one in z.reshape(-1, 2)} <= {tuple(one) for one in entries}
    np.testing.assert_allclose(model.decode(z), model.reconstruct(SOURCE.x), rtol=1e-6)
    assert model.score(SOURCE.x).mean() == pytest.approx(outcome.metrics["mse"], rel=1e-5)


def test_a_hook_changes_parameters_and_moments_inside_the_step():
    found = []
    for devices, micro_batches, parallel in FARTHEST:
        config = configuration(modern.hooked(), micro_batches, parallel, Adam(0.03))
        run = setup(config, (SOURCE, SOURCE), devices=jax.devices()[:devices])
        feed, state, ends = run.open_feed(), run.init(), []
        dispatch = run.compile(feed)
        for first in (0, 2):  # two steps in one program
            numbers = (np.int32(0), np.int32(2), np.int32(1))
            placed = [jax.device_put(number, run.replicated) for number in numbers]
            state, _ = dispatch(state, feed.at(first).arrays, *placed)
            ends.append((host(state.params), host({"moments": state.opt_state})))
        feed.close()
        found.append(ends)
    for ends in found:
        for number, (params, moments) in enumerate(ends):
            kernel = params["decoder/layers/0/kernel"]
            np.testing.assert_allclose(np.linalg.norm(kernel, axis=1), 1, rtol=1e-6)
            weights = [leaf for name, leaf in moments.items() if name.endswith("/weight")]
            assert len(weights) == 2  # both of Adam's
            for moment in weights:
                assert not moment[0].any() and moment[1:].all()
            for name, leaf in params.items():
                np.testing.assert_allclose(leaf, found[0][number][0][name], rtol=1e-4, atol=1e-6)
    first, second = (params["encoder/layers/0/weight"][0] for params, _ in found[0])
    assert (first != second).all()


def test_trees_of_the_optimizers_own_are_left_alone():
    import optax

    from aejax.models.interfaces import Update

    params = {"a": {"w": np.ones(3)}, "b": np.ones(2)}
    state = optax.adam(1e-3).init(params)
    update = Update(params, state, {}, jax.random.key(0), np.int32(0))
    changed = update.map_moments(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree)).opt_state
    names = arrays.flatten({"state": changed})
    assert {name: np.unique(leaf).tolist() for name, leaf in names.items()} == {
        "state/0/count": [0],
        "state/0/mu/a/w": [1],
        "state/0/mu/b": [1],
        "state/0/nu/a/w": [1],
        "state/0/nu/b": [1],
    }
