"""Task: is the linear autoencoder PCA? Angles between subspaces, and the loss compared with PCA's.

With squared error the optimum of a linear autoencoder spans the leading principal components, and
every other critical point is a saddle (Baldi and Hornik 1989). Subspaces are compared on the
decoder's columns: the encoder's keep their initial weights on pixels that never vary.
"""

import dataclasses
import math

import numpy as np

from aejax.data.sources import open_source
from aejax.data.sources.base import Source, Spec
from aejax.errors import InputError
from aejax.evaluation import principal
from aejax.evaluation.principal import Components
from aejax.evaluation.result import Number, Result, need_whole
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Gaussian
from aejax.runs.folder import Run
from aejax.runs.loading import Model

_ROWS_AT_A_TIME = 5000


@dataclasses.dataclass(frozen=True)
class _Affine:
    """x -> (x @ encoder + encoder_bias) @ decoder + decoder_bias, in float64."""

    encoder: np.ndarray
    encoder_bias: np.ndarray
    decoder: np.ndarray
    decoder_bias: np.ndarray

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        return (x @ self.encoder + self.encoder_bias) @ self.decoder + self.decoder_bias


def check(run: Run, spec: Spec) -> None:
    """Raises InputError where the task cannot be done."""
    need_whole(spec, "--tasks=pca")
    elements = math.prod(spec.shape)
    if elements > principal.MAX_ELEMENTS:
        raise InputError(
            f"--tasks=pca: rows have {elements} elements; must be at most {principal.MAX_ELEMENTS}"
        )


def task(model: Model, source: Source) -> Result:
    """Compares a linear autoencoder with the principal components of its training split.

    Raises:
        InputError: the model is not linear, or its rows are too large for exact components.
    """
    check(model.run, source.spec)
    weights = _affine(model)
    elements, code = weights.encoder.shape
    location, data = model.run.location(), model.run.config.data
    train = open_source(
        location.source, data.train, location.folder, keep=data.keep_labels, like=model.run.spec
    )
    components = principal.fit((x for x in _pieces(model, train)), code)
    angle = _largest_angle(weights.decoder.T, components.axes)
    numbers = {
        "angle": Number(
            angle, "rad", "largest principal angle of the decoder's columns to PCA's", main=True
        )
    }
    for name, rows in (("train", train), ("test", source)):
        own, best = _errors(model, rows, weights, components)
        gap = own / best - 1
        meaning = f"squared error above PCA's, as a share of it ({name})"
        numbers[f"{name}_mse"] = Number(own, "", f"squared error an element ({name})")
        numbers[f"{name}_pca_mse"] = Number(best, "", f"of PCA with {code} components ({name})")
        numbers[f"{name}_gap"] = Number(gap, "", meaning, main=True)
    return Result(numbers, notes=["Computed in float64 from the stored weights."])


def _affine(model: Model) -> _Affine:
    settings = model.run.config.model
    linear = (
        isinstance(settings, Autoencoder)
        and isinstance(settings.coder, Dense)
        and isinstance(settings.bottleneck, Plain)
        and isinstance(settings.likelihood, Gaussian)
        and not settings.likelihood.learned
        and not settings.coder.hidden
        and settings.bottleneck.activation == settings.likelihood.activation == "linear"
    )
    if not linear:
        raise InputError(
            "--tasks=pca: the model is not linear; that takes a dense coder with hidden=(), a plain"
            " bottleneck and a gaussian likelihood with activation=linear and variance=fixed"
            " (config=linear)"
        )
    (encoder,), (decoder,) = model.module.encoder.layers, model.module.decoder.layers
    return _Affine(*_weights(encoder), *_weights(decoder))


def _weights(layer) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.asarray(layer.kernel[...], np.float64)
    bias = np.zeros(kernel.shape[1]) if layer.bias is None else layer.bias[...]
    return kernel, np.asarray(bias, np.float64)


def _pieces(model: Model, source: Source):
    for start in range(0, len(source), _ROWS_AT_A_TIME):
        raw = source[slice(start, start + _ROWS_AT_A_TIME)].x
        yield model.prepare(raw).reshape(len(raw), -1).astype(np.float64)


def _largest_angle(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.linalg import subspace_angles

    return float(subspace_angles(a, b).max())


def _errors(
    model: Model, source: Source, weights: _Affine, components: Components
) -> tuple[float, float]:
    """Squared error an element of the autoencoder, and of PCA."""
    totals, count = np.zeros(2), 0
    for x in _pieces(model, source):
        both = (weights.reconstruct(x), components.reconstruct(x))
        totals += [np.square(y - x).sum() for y in both]
        count += x.size
    own, best = totals / count
    return float(own), float(best)
