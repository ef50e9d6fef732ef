"""The exported functions: pure functions of raw rows that include parameters and preparation.

They are functions of one row under vmap, so that they take any number of rows.

A score is compared with the threshold as in `launch.encode --flag`, but with a margin of 1e-5 of
the threshold: the row that set the threshold has exactly this score, and other programs round
differently.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.data.sources.base import Spec
from aejax.errors import InputError
from aejax.evaluation.detector import NEIGHBOURS, Detector, TrainingCodes
from aejax.models.batch import batch_mask
from aejax.runs.loading import Model

SCORES = ("error", "mahalanobis", "knn")
_MARGIN = 1e-5


class Entry(NamedTuple):
    """One exported function.

    Attributes:
        function: array -> array, or a tuple of arrays.
        takes: the name of the array that it takes.
        taken: its shape and type.
        gives: names of the arrays that it gives.
    """

    function: Callable[[jax.Array], Any]
    takes: str
    taken: jax.ShapeDtypeStruct
    gives: tuple[str, ...]

    def signature(self) -> tuple[str, str]:
        """What it takes and what it gives, as `code`: float32 [rows, 32]."""
        given = jax.tree.leaves(jax.eval_shape(self.function, self.taken))
        gives = [_described(*each) for each in zip(self.gives, given, strict=True)]
        return _described(self.takes, self.taken), ", ".join(gives)


@dataclasses.dataclass(frozen=True)
class RowFunctions:
    """The functions of a run that are exported; matrices are multiplied in full float32.

    Attributes:
        model: the live model.
        outputs: names of what `all` gives.
    """

    model: Model
    outputs: ClassVar[tuple[str, ...]]

    def __post_init__(self):
        # Not placed on a device: parameters become constants of the exported functions.
        graph, state = nnx.split(self.model.module)
        module = nnx.merge(graph, jax.tree.map(jnp.asarray, jax.device_get(state)))
        object.__setattr__(self, "model", dataclasses.replace(self.model, module=module))

    @property
    def spec(self) -> Spec:
        """The spec of the raw rows."""
        return self.model.run.spec

    @property
    def threshold(self) -> dict[str, Any] | None:
        """The record of the threshold above which rows are flagged; None without one."""
        return None

    def encode(self, raw: jax.Array) -> jax.Array:
        """Raw rows [rows, *shape] -> codes, as `Model.encode`."""
        return _mapped(lambda rows: self._prepared(rows)[1], raw)

    def all(self, raw: jax.Array) -> tuple[jax.Array, ...]:
        """Raw rows -> the arrays of `outputs`."""
        return _mapped(self._all, raw)

    def entries(self, count: Any) -> dict[str, Entry]:
        """Each exported function by name, for so many rows."""
        return {"encode": Entry(self.encode, "rows", self.rows(count), ("code",))}

    def rows(self, count: Any) -> jax.ShapeDtypeStruct:
        """Shape and type of `count` raw rows."""
        return jax.ShapeDtypeStruct((count, *self.spec.shape), self.spec.dtype)

    def codes(self, count: Any) -> jax.ShapeDtypeStruct:
        """Shape and type of `count` codes."""
        return jax.ShapeDtypeStruct((count, *self.model.code_shape), jnp.float32)

    def _all(self, raw: jax.Array) -> tuple[jax.Array, ...]:
        raise NotImplementedError

    def _prepared(self, raw: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """x, its code, and its mask (None where everything is real)."""
        x = self.model.preparation(raw)
        real = batch_mask(raw, None, self.spec.shape, self.spec.missing)
        return x, self.model.module.encode(x, real), real


@dataclasses.dataclass(frozen=True)
class Classification(RowFunctions):
    """The functions of a classifier."""

    outputs = ("code", "probabilities")

    def classify(self, raw: jax.Array) -> jax.Array:
        """Raw rows -> p(label given x) [rows, classes], as `Model.classify`."""
        return self.all(raw)[1]

    def entries(self, count: Any) -> dict[str, Entry]:
        classify = Entry(self.classify, "rows", self.rows(count), ("probabilities",))
        return {**super().entries(count), "classify": classify}

    def _all(self, raw: jax.Array) -> tuple[jax.Array, ...]:
        x, z, real = self._prepared(raw)
        return z, self.model.module.classify(x, real)


@dataclasses.dataclass(frozen=True)
class Functions(RowFunctions):
    """The functions of an autoencoder.

    Attributes:
        detector: computes scores and flags; None if no row is flagged and the score is
            `Model.score`.
    """

    detector: Detector | None
    outputs = ("code", "reconstruction", "score", "flagged")

    @property
    def threshold(self) -> dict[str, Any] | None:
        return None if self.detector is None else self.detector.record

    def decode(self, z: jax.Array) -> jax.Array:
        """Codes -> rows in the units of `Model.decode`."""
        inverse = self.model.preparation.inverse
        return _mapped(lambda rows: inverse(self.model.module.decode(rows)), z)

    def reconstruct(self, raw: jax.Array) -> jax.Array:
        """Raw rows -> reconstructions, as `Model.reconstruct`."""
        return self.all(raw)[1]

    def score(self, raw: jax.Array) -> tuple[jax.Array, ...]:
        """Raw rows -> the score of each, float32 [rows], and whether it is flagged, bool [rows]."""
        return self.all(raw)[2:]

    def entries(self, count: Any) -> dict[str, Entry]:
        raw = self.rows(count)
        return {
            **super().entries(count),
            "decode": Entry(self.decode, "code", self.codes(count), ("reconstruction",)),
            "reconstruct": Entry(self.reconstruct, "rows", raw, ("reconstruction",)),
            "score": Entry(self.score, "rows", raw, ("score", "flagged")),
        }

    def _all(self, raw: jax.Array) -> tuple[jax.Array, ...]:
        x, z, real = self._prepared(raw)
        decoded = self.model.module.decode(z)
        score = self._score(z, lambda: self.model.row_errors(x, decoded, real))
        flagged = jnp.zeros(score.shape, jnp.bool_)
        if self.detector is not None and (limit := self.detector.threshold) is not None:
            # NaN is flagged as well.
            flagged = ~(score <= np.float32(limit + _MARGIN * abs(limit)))
        return z, self.model.preparation.inverse(decoded), score, flagged

    def _score(self, z: jax.Array, error: Callable[[], jax.Array]) -> jax.Array:
        if self.detector is None or self.detector.score == "error":
            return error()
        flat = z.reshape(len(z), -1) - self.detector.training_codes.mean.astype(np.float32)
        distance = {"mahalanobis": _mahalanobis, "knn": _knn}[self.detector.score]
        return distance(flat, self.detector.training_codes)


def _described(name: str, array: Any) -> str:
    """`name`: its type and shape."""
    return f"`{name}`: {array.dtype} [{', '.join(map(str, array.shape))}]"


def _mapped(function: Callable[[jax.Array], Any], rows: jax.Array) -> Any:
    """function(rows) by vmap over single rows; rows and results [rows, ...]."""

    def of_one(row: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: jnp.squeeze(leaf, 0), function(row[None]))

    with jax.default_matmul_precision("highest"):
        return jax.vmap(of_one)(rows)


def check_detector(workdir: str, detector: Detector | None) -> None:
    """Raises InputError for a score that depends on more than the row."""
    if detector is not None and detector.score not in SCORES:
        raise InputError(
            f"--workdir={workdir}: its threshold is of --score={detector.score}, which is drawn at"
            f" random; export takes {' or '.join(SCORES)}: python -m launch.evaluate"
            f" --workdir={workdir} --tasks=anomaly --score=error"
        )


def _mahalanobis(away: jax.Array, training_codes: TrainingCodes) -> jax.Array:
    """sqrt(a^T P a) as the norm of R a with P = R^T R, which is accurate in float32."""
    values, vectors = np.linalg.eigh(training_codes.precision)
    root = vectors * np.sqrt(np.maximum(values, 0))
    return jnp.sqrt(jnp.sum(jnp.square(away @ root.astype(np.float32)), axis=1))


def _knn(z: jax.Array, training_codes: TrainingCodes) -> jax.Array:
    """The mean distance to the nearest training codes.

    Candidates are found by matrix products. Their distances are then computed from differences,
    since the products lose digits where codes are close together.
    """
    codes = (training_codes.codes - training_codes.mean).astype(np.float32)
    count = min(NEIGHBOURS, len(codes))
    near = 2 * (z @ codes.T) - np.square(codes).sum(axis=1)
    index = jax.lax.top_k(near, min(2 * count, len(codes)))[1]
    away = jnp.take(jnp.asarray(codes), index, axis=0, mode="clip") - z[:, None]
    distance = jnp.sqrt(jnp.sum(jnp.square(away), axis=2))
    return -jnp.mean(jax.lax.top_k(-distance, count)[0], axis=1)
