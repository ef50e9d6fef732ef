"""Optimizers and schedules against their papers' equations in NumPy, double precision."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import optimizer
from aejax.optimizer import Adadelta, Adam, AdamW, Constant, Cosine, Sgd, StepDecay, build

STEPS = 8
RANDOM = np.random.RandomState(0)
PARAMS = {"kernel": RANDOM.randn(4, 3), "conv": RANDOM.randn(2, 2, 1, 2), "bias": RANDOM.randn(3)}


def gradient() -> dict[str, np.ndarray]:
    """Of many sizes: an epsilon in the wrong place shows in small ones."""
    sizes = {name: 10.0 ** RANDOM.randint(-6, 2, p.shape) for name, p in PARAMS.items()}
    return {name: RANDOM.randn(*p.shape) * sizes[name] for name, p in PARAMS.items()}


GRADIENTS = [gradient() for _ in range(STEPS)]


def trained(settings: optimizer.Optimizer, gradients=GRADIENTS) -> list[dict[str, np.ndarray]]:
    """Parameters after each step."""
    transformation = build(settings, STEPS)

    @jax.jit
    def step(params, state, gradient):
        updates, state = transformation.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), PARAMS)
    state, out = transformation.init(params), []
    for gradient in gradients:
        gradient = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradient)
        params, state = step(params, state, gradient)
        out.append(jax.tree.map(np.float64, params))
    return out


def adam(g: list[np.ndarray], b1=0.9, b2=0.999, eps=1e-8) -> list[np.ndarray]:
    """Directions of Kingma and Ba (2015), algorithm 1."""
    m = v = np.zeros_like(g[0])
    out = []
    for t, gradient in enumerate(g, start=1):
        m = b1 * m + (1 - b1) * gradient
        v = b2 * v + (1 - b2) * gradient**2
        out.append(m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps))
    return out


def adadelta(g: list[np.ndarray], rho=0.95, eps=1e-7) -> list[np.ndarray]:
    """Directions of Zeiler (2012), algorithm 1."""
    squares = moves = np.zeros_like(g[0])
    out = []
    for gradient in g:
        squares = rho * squares + (1 - rho) * gradient**2
        move = np.sqrt(moves + eps) / np.sqrt(squares + eps) * gradient
        moves = rho * moves + (1 - rho) * move**2
        out.append(move)
    return out


def momentum(g: list[np.ndarray], decay=0.0, nesterov=False) -> list[np.ndarray]:
    """v = decay v + g; Nesterov's looks ahead by one more (Sutskever et al. 2013)."""
    velocity, out = np.zeros_like(g[0]), []
    for gradient in g:
        velocity = decay * velocity + gradient
        out.append(gradient + decay * velocity if nesterov else velocity)
    return out


def expected(directions, rate: float, decay: float = 0.0) -> list[dict[str, np.ndarray]]:
    """theta = theta - rate (direction + decay theta), decay on kernels alone."""
    out = [dict(PARAMS) for _ in range(STEPS)]
    for name, theta in PARAMS.items():
        share = decay if theta.ndim > 1 else 0.0
        for t, direction in enumerate(directions([g[name] for g in GRADIENTS])):
            theta = theta - rate * (direction + share * theta)
            out[t][name] = theta
    return out


def assert_same(found, exact) -> None:
    for step, (one, other) in enumerate(zip(found, exact, strict=True)):
        for name, value in other.items():
            np.testing.assert_allclose(
                one[name], value, rtol=2e-5, atol=2e-6, err_msg=f"{name} after step {step + 1}"
            )


@pytest.mark.parametrize(
    ("settings", "directions", "rate", "decay"),
    [
        (Adam(), adam, 1e-3, 0.0),
        (
            Adam(learning_rate=0.1, b1=0.8, b2=0.9, eps=1e-3),
            lambda g: adam(g, 0.8, 0.9, 1e-3),
            0.1,
            0.0,
        ),
        # 1 - b2^t at 0.999 has few digits in single precision: larger rates need a smaller b2
        (AdamW(learning_rate=0.1, b2=0.9), lambda g: adam(g, b2=0.9), 0.1, 1e-2),
        (AdamW(learning_rate=0.05, b2=0.9, weight_decay=0.5), lambda g: adam(g, b2=0.9), 0.05, 0.5),
        (Adam(learning_rate=0.1, b2=0.9, weight_decay=0.25), lambda g: adam(g, b2=0.9), 0.1, 0.25),
        (Adadelta(), adadelta, 1.0, 0.0),
        (
            Adadelta(learning_rate=0.5, rho=0.6, eps=1e-3),
            lambda g: adadelta(g, 0.6, 1e-3),
            0.5,
            0.0,
        ),
        (Sgd(), momentum, 0.1, 0.0),
        (Sgd(learning_rate=0.01, momentum=0.9), lambda g: momentum(g, 0.9), 0.01, 0.0),
        (
            Sgd(learning_rate=0.01, momentum=0.9, nesterov=True),
            lambda g: momentum(g, 0.9, True),
            0.01,
            0.0,
        ),
        (
            Sgd(learning_rate=0.01, momentum=0.9, weight_decay=0.5),
            lambda g: momentum(g, 0.9),
            0.01,
            0.5,
        ),
    ],
)
def test_an_optimizer_follows_its_papers_equations(settings, directions, rate, decay):
    assert_same(trained(settings), expected(directions, rate, decay))


def test_the_default_of_adamw_decays_kernels_and_leaves_biases_alone():
    plain, decayed = trained(Adam(learning_rate=0.1)), trained(AdamW(learning_rate=0.1))
    for one, other in zip(plain, decayed, strict=True):
        assert np.array_equal(one["bias"], other["bias"])
        assert not np.array_equal(one["kernel"], other["kernel"])
        assert not np.array_equal(one["conv"], other["conv"])


def test_decay_is_decoupled_a_zero_gradient_shrinks_kernels_by_the_rate_alone():
    nothing = [jax.tree.map(np.zeros_like, PARAMS)] * STEPS
    for settings in (AdamW(learning_rate=0.1, weight_decay=0.5), Sgd(0.1, weight_decay=0.5)):
        for t, params in enumerate(trained(settings, nothing), start=1):
            np.testing.assert_allclose(params["kernel"], PARAMS["kernel"] * 0.95**t, rtol=1e-5)
            np.testing.assert_allclose(params["bias"], PARAMS["bias"], rtol=1e-6)


@pytest.mark.parametrize("clip", [0.5, 3.0, 1e4])
def test_the_gradient_is_clipped_by_its_norm_over_all_arrays(clip):
    params = dict(PARAMS)
    exact = []
    for gradient in GRADIENTS:
        norm = math.sqrt(sum(np.square(g).sum() for g in gradient.values()))
        share = min(1.0, clip / norm)
        params = {name: params[name] - 0.1 * share * g for name, g in gradient.items()}
        exact.append(params)
    assert_same(trained(Sgd(learning_rate=0.1, clip=clip)), exact)


def test_clipping_comes_before_the_moments_and_does_not_clip_the_decay():
    settings = AdamW(learning_rate=0.1, weight_decay=0.5, clip=1e-9)
    nothing = trained(settings, [jax.tree.map(np.zeros_like, PARAMS)] * STEPS)
    large = jax.tree.map(lambda p: np.full_like(p, 1e6), PARAMS)
    moved = trained(settings, [large] * STEPS)
    change = moved[0]["kernel"] - nothing[0]["kernel"]
    norm = math.sqrt(sum(p.size for p in PARAMS.values()))
    clipped = 1e-9 / norm
    np.testing.assert_allclose(change, -0.1 * clipped / (clipped + 1e-8), rtol=1e-3)


def rates(settings: optimizer.Optimizer, steps: int, until: int) -> np.ndarray:
    schedule = jax.jit(optimizer.learning_rate(settings, steps))
    return np.array([float(schedule(t)) for t in range(until)])


def test_a_constant_rate_stays():
    np.testing.assert_allclose(rates(Adam(0.25), 10, 20), 0.25)
    assert isinstance(Adam().schedule, Constant)


@pytest.mark.parametrize("final", [0.0, 0.25])
def test_the_cosine_falls_from_the_peak_to_its_final_share_and_stays(final):
    t = np.minimum(np.arange(60), 40)
    exact = 0.5 * (final + (1 - final) * (1 + np.cos(np.pi * t / 40)) / 2)
    found = rates(Adam(0.5, Cosine(final)), 40, 60)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-7)
    assert found[0] == 0.5 and found[40:] == pytest.approx(0.5 * final, abs=1e-7)


def test_the_step_schedule_multiplies_at_each_milestone():
    found = rates(Adam(0.5, StepDecay((0.25, 0.5, 0.9), 0.1)), 40, 60)
    exact = 0.5 * np.repeat([1, 0.1, 0.01, 0.001], [10, 10, 16, 24])
    np.testing.assert_allclose(found, exact, rtol=1e-5)
    found = rates(Adam(0.5, StepDecay()), 8, 9)[[3, 4, 5, 6]]
    np.testing.assert_allclose(found, [0.5, 0.05, 0.05, 0.005], rtol=1e-5)


def test_milestones_that_fall_on_one_step_both_count():
    found = rates(Adam(0.5, StepDecay((0.5, 0.52, 0.75), 0.1)), 10, 12)
    np.testing.assert_allclose(found[[4, 5, 11]], [0.5, 0.005, 0.0005], rtol=1e-5)


@pytest.mark.parametrize("schedule", [Constant(), Cosine(0.25)])
def test_the_warm_up_rises_in_a_line_and_the_schedule_follows_over_what_is_left(schedule):
    found = rates(Adam(0.5, schedule, warmup=0.2), 50, 70)
    np.testing.assert_allclose(found[:11], 0.5 * np.arange(11) / 10, rtol=1e-6)
    t = np.minimum(np.arange(60), 40)
    share = 0.25 + 0.75 * (1 + np.cos(np.pi * t / 40)) / 2
    after = 0.5 * (share if isinstance(schedule, Cosine) else np.ones(60))
    np.testing.assert_allclose(found[10:], after, rtol=1e-5)


def test_a_warm_up_shorter_than_half_a_step_is_none():
    assert rates(Adam(0.5, warmup=0.04), 10, 1) == 0.5
    assert rates(Adam(0.5, warmup=0.1), 10, 2).tolist() == [0.0, 0.5]


def test_a_run_of_one_step_has_a_rate():
    for schedule in (Constant(), Cosine(), StepDecay()):
        assert np.isfinite(rates(Adam(0.5, schedule), 1, 3)).all()
        assert np.isfinite(rates(Adam(0.5, schedule, warmup=0.9), 1, 3)).all()


def test_every_step_uses_the_rate_of_its_schedule():
    settings = Sgd(learning_rate=0.5, schedule=Cosine(), warmup=0.25)
    schedule, params, exact = rates(settings, STEPS, STEPS), dict(PARAMS), []
    for rate, gradient in zip(schedule, GRADIENTS, strict=True):
        params = {name: params[name] - rate * g for name, g in gradient.items()}
        exact.append(params)
    assert_same(trained(settings), exact)


@pytest.mark.parametrize("milestones", [(0.5, 0.5), (0.6, 0.3), (0.0, 0.5), (0.5, 1.0), (-0.1,)])
def test_milestones_that_do_not_rise_inside_the_run_are_refused(milestones):
    with pytest.raises(ValueError, match="milestones=.*: must rise between 0 and 1"):
        StepDecay(milestones)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"warmup": 1.0}, "warmup=1.0: must be from 0 up to below 1"),
        ({"warmup": -0.1}, "warmup=-0.1: must be from 0"),
        ({"warmup": math.nan}, "warmup=nan: must be from 0"),
        ({"ema": 1.0}, "ema=1.0: must be from 0"),
        ({"ema": math.nan}, "ema=nan: must be from 0"),
    ],
)
def test_shares_outside_of_the_run_are_refused(fields, said):
    for kind in optimizer.KINDS.values():
        with pytest.raises(ValueError, match=said):
            kind(**fields)
