"""The deep belief network: each gradient against NumPy's, with the same draws."""

import jax
import numpy as np
import pytest

import aejax
from aejax.data.sources.base import Arrays
from aejax.models import DeepBelief
from aejax.optimizer import Adam, Sgd
from aejax.pretrain import Greedy
from tests.training.runs import losses, small, train
from tests.training.test_contracts import BATCH, ELEMENTS, SEED, rows_of, updates
from tests.training.toys import row_keys, sigmoid

SIZES = (5, 4, 3)


def coins(logits: np.ndarray, keys: list) -> np.ndarray:
    draws = [np.asarray(jax.random.uniform(key, logits.shape[1:])) for key in keys]
    return (np.stack(draws) < sigmoid(logits)).astype(float)


def affine(params: dict, name: str, x: np.ndarray) -> np.ndarray:
    weight = params.get(f"{name}/kernel")
    return x @ (params[f"{name}/weight"].T if weight is None else weight) + params[f"{name}/bias"]


def keys_of(step: int, part: str) -> list:
    return row_keys(SEED, step, BATCH, part)


def gradient(params: dict, x: np.ndarray, step: int) -> dict[str, np.ndarray]:
    """Wake, top and sleep of the paper's appendix B, by outer products."""
    found, states = {}, [x]
    for k in range(2):
        states.append(coins(affine(params, f"up/{k}", states[k]), keys_of(step, f"wake {k}")))
    for k in range(2):
        error = sigmoid(affine(params, f"down/{k}", states[k + 1])) - states[k]
        found[f"down/{k}/kernel"] = states[k + 1].T @ error / BATCH
        found[f"down/{k}/bias"] = error.mean(0)
    weight, b, c = (params[f"top/{n}"] for n in ("weight", "visible_bias", "hidden_bias"))
    v = states[2]
    fold = jax.random.fold_in
    for i in range(2):
        chain = keys_of(step, "gibbs")
        h = coins(v @ weight + c, [fold(key, 2 * i) for key in chain])
        v = coins(h @ weight.T + b, [fold(key, 2 * i + 1) for key in chain])
    data, model = ((u.T @ sigmoid(u @ weight + c) / BATCH) for u in (states[2], v))
    found["top/weight"] = model - data
    found["top/visible_bias"] = v.mean(0) - states[2].mean(0)
    hidden = [sigmoid(u @ weight + c).mean(0) for u in (states[2], v)]
    found["top/hidden_bias"] = hidden[1] - hidden[0]
    dream = coins(affine(params, "down/1", v), keys_of(step, "dream 0"))
    dreams = [sigmoid(affine(params, "down/0", dream)), dream, v]
    for k in range(2):
        error = sigmoid(affine(params, f"up/{k}", dreams[k])) - dreams[k + 1]
        found[f"up/{k}/weight"] = error.T @ dreams[k] / BATCH
        found[f"up/{k}/bias"] = error.mean(0)
    return found


def test_a_step_is_wake_top_and_sleep():
    model = DeepBelief(SIZES[:2], SIZES[2], k=2, persistent=False)
    for step, (params, found, _, _) in enumerate(updates(model, 1, 1, "pjit", 3)):
        wanted = gradient(params, rows_of(step), step)
        assert found.keys() == wanted.keys()
        assert params["up/0/weight"].shape == (SIZES[0], ELEMENTS)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, atol=2e-6, err_msg=name)


def test_training_is_the_same_on_any_devices():
    config = small(model=DeepBelief((20, 10), 8), batch_size=64, optimizer=Sgd(0.05))
    wanted = losses(config, 3)[0]
    np.testing.assert_allclose(losses(config, 3, devices=8)[0], wanted, rtol=2e-5)


def test_stages_make_machines_of_which_the_last_generates(tmp_path):
    halves = np.repeat(np.eye(2, dtype=np.float32), 3, axis=1)  # 111000 and 000111
    rows = Arrays(halves[np.arange(400) % 2], None, 1.0)
    config = small(
        model=DeepBelief((8,), 4, persistent=False),
        pretrain=Greedy("600 steps", Adam(0.02), by=("rbm",)),
        optimizer=Sgd(0.0),
        duration="1 steps",
        batch_size=100,
    )
    train(config, tmp_path, (rows, rows))
    net = aejax.load(str(tmp_path))
    stages = [aejax.load(str(tmp_path / f"stage{k}")).module for k in (1, 2)]
    weight = np.asarray(stages[0].weight[...])
    up, down = net.module.up[0], net.module.down[0]
    np.testing.assert_array_equal(up.weight[...], weight.T)
    np.testing.assert_array_equal(down.kernel[...], weight.T)
    np.testing.assert_array_equal(up.bias[...], stages[0].hidden_bias[...])
    np.testing.assert_array_equal(down.bias[...], stages[0].visible_bias[...])
    for name in ("weight", "visible_bias", "hidden_bias"):
        pair = [getattr(top, name)[...] for top in (net.module.top, stages[1])]
        np.testing.assert_array_equal(*pair)
    drawn = net.sample(400, seed=1)
    np.testing.assert_array_equal(drawn, net.sample(400, seed=1))
    distance = np.abs(drawn[:, None] - halves).mean(axis=2)
    # How often each of the two comes is not what contrastive divergence learns.
    assert np.mean(distance.min(axis=1) < 0.2) > 0.8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden": ()}, r"hidden=\(\): must be one number or more"),
        ({"latent_dim": 0}, "latent_dim=0: must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, said):
    with pytest.raises(ValueError, match=said):
        DeepBelief(**changes)
