"""The partition function Z of a restricted Boltzmann machine: a sum over states, or an estimate.

Annealed importance sampling (Salakhutdinov and Murray 2008, section 4.1) samples from a machine
without weights, whose biases give the training rows' means, and moves the samples along

    p_t(v) ~ exp(-(1 - t) E_0(v) - t E(v)) prod_j (1 + exp(t (c_j + W_j'v / s))),   t = 0 ... 1

with one step of Gibbs sampling at each temperature t; E_0 and E are the energies of the visible
biases. The mean weight of the samples, prod p_t+(v) / p_t(v), is an unbiased estimate of Z / Z_0.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from aejax.mesh import all_rows, by_row, replicated_over
from aejax.models.rbm import Machine, coins, softplus

# Z is summed exactly if a layer has at most so many binary units.
MOST_UNITS = 20
_STATES_AT_A_TIME = 2**10
# The paper's 14,500 temperatures (section 4.2): so many up to 0.5, up to 0.9, and up to 1.
_SPACED = ((0.5, 500), (0.9, 4000), (1.0, 10_000))
TEMPERATURES = sum(count for _, count in _SPACED)


class Estimate(NamedTuple):
    """log Z by annealed importance sampling.

    Attributes:
        log_z: the estimate, nats.
        error: its standard error.
        low, high: log of the estimate of Z less, and plus, three standard errors; low may be -inf.
        effective: effective number of samples, (sum of weights)^2 / sum of their squares.
    """

    log_z: float
    error: float
    low: float
    high: float
    effective: float


def exact(machine: Machine) -> float | None:
    """log Z in nats by a sum over all states of the smaller layer; None if both are too large.

    For each of at most 2^20 states the sum over the other layer is in closed form.
    """
    visible, hidden = machine.weight.shape
    by_hidden = not machine.binary or hidden <= visible
    units = hidden if by_hidden else visible
    if units > MOST_UNITS:
        return None
    size = min(_STATES_AT_A_TIME, 2**units)
    log_p = functools.partial(_log_p_hidden if by_hidden else _log_p_visible, machine)

    @jax.jit
    def total(first: jax.Array) -> jax.Array:
        number = first + jnp.arange(size)
        state = (number[:, None] >> jnp.arange(units)) & 1
        return jax.nn.logsumexp(log_p(state.astype(jnp.float32)))

    with jax.default_matmul_precision("highest"):
        parts = [float(total(jnp.int32(first))) for first in range(0, 2**units, size)]
    return float(np.logaddexp.reduce(parts))


def _log_p_visible(machine: Machine, v: jax.Array) -> jax.Array:
    return -machine.free_energy(v)


def _log_p_hidden(machine: Machine, h: jax.Array) -> jax.Array:
    """log of exp(-E(v, h)) summed, or integrated, over v: h [states, hidden] -> [states]."""
    inputs = machine.visible_input(h)
    if machine.binary:
        over_v = jnp.sum(softplus(inputs), axis=-1)
    else:
        squares = (jnp.square(inputs) - jnp.square(machine.visible_bias)) / (2 * machine.scale**2)
        over_v = jnp.sum(squares, axis=-1) + _log_normal(machine)
    return h @ machine.hidden_bias + over_v


def _log_normal(machine: Machine) -> float:
    """log of the integral of exp(-|v|^2 / (2 s^2))."""
    return 0.5 * len(machine.visible_bias) * math.log(2 * math.pi * machine.scale**2)


def temperatures(count: int) -> np.ndarray:
    """Temperatures from 0 to 1 (`count` of them above 0), denser towards 1 as in the paper."""
    places = np.cumsum([0, *(share for _, share in _SPACED)]) / TEMPERATURES
    ends = [0.0, *(end for end, _ in _SPACED)]
    return np.interp(np.linspace(0, 1, count + 1), places, ends)


def annealed(
    machine: Machine, means: np.ndarray, chains: int, count: int, seed: int = 0
) -> Estimate:
    """Estimates log Z by annealed importance sampling.

    Args:
        machine: is copied to all of this process's devices, which share the samples.
        means: of training rows [visible], for the initial samples; binary ones within (0, 1).
        chains: number of samples, at least 2.
        count: number of temperatures.
        seed: of the samples.
    """
    start = np.asarray(special.logit(means) if machine.binary else means, np.float32)
    t = temperatures(count).astype(np.float32)
    devices = jax.local_devices()
    inputs = (machine, start, t, jax.random.key(seed))
    inputs = jax.device_put(inputs, replicated_over(devices))
    # Every device has equally many samples; those beyond `chains` are computed twice, and cut.
    number = np.arange(-(-chains // len(devices)) * len(devices)) % chains
    number = jax.device_put(number, all_rows(devices))
    with jax.default_matmul_precision("highest"):
        log_weight = _log_weights(inputs, number, chains, tuple(devices))
    log_z = _log_z_without_weights(machine, start) + np.asarray(log_weight, np.float64)[:chains]
    return estimate(log_z)


def estimate(log_z: np.ndarray) -> Estimate:
    """The logarithm of the mean of exp(log_z) [chains], each of which is an estimate of Z."""
    largest = log_z.max()
    weight = np.exp(log_z - largest)
    mean, error = weight.mean(), weight.std(ddof=1) / math.sqrt(len(weight))
    low = math.log(mean - 3 * error) if mean > 3 * error else -math.inf
    return Estimate(
        log_z=float(largest + math.log(mean)),
        error=float(error / mean),
        low=float(largest + low),
        high=float(largest + math.log(mean + 3 * error)),
        effective=float(weight.sum() ** 2 / np.square(weight).sum()),
    )


def _log_z_without_weights(machine: Machine, bias: np.ndarray) -> float:
    hidden = len(machine.hidden_bias) * math.log(2)
    if machine.binary:
        return hidden + float(np.logaddexp(0, np.asarray(bias, np.float64)).sum())
    return hidden + _log_normal(machine)


@functools.partial(jax.jit, static_argnames=("chains", "devices"))
def _log_weights(inputs: Any, number: jax.Array, chains: int, devices: tuple) -> jax.Array:
    """`_moved`, where each device moves its own samples."""
    return by_row(functools.partial(_moved, chains), devices)(inputs, number)


def _moved(
    chains: int, inputs: tuple[Machine, jax.Array, jax.Array, jax.Array], number: jax.Array
) -> jax.Array:
    """The log weight of each sample after all temperatures.

    Args:
        chains: how many samples there are in all.
        inputs: the machine, first biases [visible], temperatures [count + 1], and the key.
        number: which of the samples to compute, [samples]; each has its own keys.
    """
    machine, bias, t, key = inputs

    def own_keys(key: jax.Array) -> jax.Array:
        return jax.random.split(key, chains)[number]

    def log_p(t: jax.Array, v: jax.Array, hidden_input: jax.Array) -> jax.Array:
        energy = (1 - t) * machine.visible_energy(v, bias)
        energy += t * machine.visible_energy(v, machine.visible_bias)
        return jnp.sum(softplus(t * hidden_input), axis=-1) - energy

    def move(carry, step):
        v, hidden_input, log_weight = carry
        before, now, key = step
        log_weight += log_p(now, v, hidden_input) - log_p(before, v, hidden_input)
        up, down = (own_keys(each) for each in jax.random.split(key))
        h = coins(now * hidden_input, up)
        inputs = (1 - now) * bias + now * machine.visible_input(h)
        v = machine.visible_sample(inputs, down)
        return (v, machine.hidden_input(v), log_weight), None

    first, *keys = jax.random.split(key, 2)
    biases = jnp.broadcast_to(bias, (len(number), len(bias)))
    v = machine.visible_sample(biases, own_keys(first))
    steps = (t[:-1], t[1:], jax.random.split(keys[0], len(t) - 1))
    start = (v, machine.hidden_input(v), jnp.zeros(len(number)))
    return jax.lax.scan(move, start, steps)[0][2]
