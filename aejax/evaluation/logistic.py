"""Multinomial logistic regression with an L2 penalty, minimised to convergence."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

STEPS = 1000
# The largest gradient at the end, in coordinates in which second derivatives are about 1.
_TOLERANCE = 1e-5
# A gradient below this is rounding of float32 sums.
_NOISE = 1e-3
_MEMORY = 20


class LinearClassifier(NamedTuple):
    """A fitted classifier.

    Attributes:
        classes: sorted labels [classes].
        weight: [numbers, classes].
        bias: [classes].
        loss: mean of -log p(label) plus the L2 penalty, nats.
        steps: of L-BFGS.
        converged: whether the fit converged.
    """

    classes: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    loss: float
    steps: int
    converged: bool

    def predict(self, x: np.ndarray) -> np.ndarray:
        """x [rows, numbers] -> labels [rows]."""
        return self.classes[np.argmax(x @ self.weight + self.bias, axis=1)]

    def error(self, x: np.ndarray, label: np.ndarray) -> float:
        """Share of the rows that are classified wrongly."""
        return float(np.mean(self.predict(x) != label))


class Problem:
    """Rows and labels on the device, and coordinates in which the loss is well conditioned.

    For uniform probabilities the loss's second derivative is S / classes + L2, with S = x'x / rows.
    With W = P V and P = (S / classes + L2)^(-1/2), L-BFGS (Liu and Nocedal 1989) optimises V.
    """

    def __init__(self, x: np.ndarray, label: np.ndarray):
        """x: float32 [rows, numbers], with means near 0; label: int [rows]."""
        self.classes, place = np.unique(label, return_inverse=True)
        self._x = jnp.asarray(x)
        self._place = jnp.asarray(place, jnp.int32)
        with jax.default_matmul_precision("highest"):
            squares = np.asarray(_squares(self._x), np.float64)
        values, self._axes = np.linalg.eigh(squares / len(x))
        self._values = np.maximum(values, 0)

    def fit(self, l2: float, start: LinearClassifier | None = None) -> LinearClassifier:
        """Minimises mean -log softmax(x W + b)[label] + l2 / 2 ||W||^2.

        Args:
            l2: above 0.
            start: a classifier of the same shapes, as the starting point.
        """
        from scipy.optimize import minimize

        count, size = len(self.classes), len(self._values)
        scale = 1 / np.sqrt(self._values / count + l2)
        shape = (size + 1, count)

        def to_weights(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            v = v.reshape(shape)
            # The bias's second derivative is 1 / classes.
            return self._axes @ (scale[:, None] * v[:-1]), v[-1] * np.sqrt(count)

        def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
            weight, bias = to_weights(v)
            inputs = (jnp.float32(weight), jnp.float32(bias))
            with jax.default_matmul_precision("highest"):
                value, slopes = _value(inputs, self._x, self._place)
            slope = np.asarray(slopes[0], np.float64) + l2 * weight
            to_bias = np.asarray(slopes[1], np.float64)[None] * np.sqrt(count)
            to_v = np.concatenate([scale[:, None] * (self._axes.T @ slope), to_bias])
            return float(value) + l2 / 2 * float(np.sum(weight**2)), to_v.ravel()

        first = np.zeros(shape)
        if start is not None and start.weight.shape == (size, count):
            first[:-1] = (self._axes.T @ start.weight) / scale[:, None]
            first[-1] = start.bias / np.sqrt(count)
        options = {"maxiter": STEPS, "maxcor": _MEMORY, "gtol": _TOLERANCE, "ftol": 1e-7}
        found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
        weight, bias = to_weights(found.x)
        converged = found.nit < STEPS and float(np.abs(found.jac).max()) < _NOISE
        single = (weight.astype(np.float32), bias.astype(np.float32))
        return LinearClassifier(self.classes, *single, float(found.fun), int(found.nit), converged)


@jax.jit
def _squares(x: jax.Array) -> jax.Array:
    return x.T @ x


@jax.jit
@jax.value_and_grad
def _value(parameters: Any, x: jax.Array, place: jax.Array) -> jax.Array:
    weight, bias = parameters
    log_p = jax.nn.log_softmax(x @ weight + bias)
    return -jnp.mean(jnp.take_along_axis(log_p, place[:, None], axis=1))
