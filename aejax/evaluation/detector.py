"""Anomaly scores of rows, and the threshold that is kept in a run's folder.

A code is scored by its Mahalanobis distance (with the covariance shrunk as in Ledoit and Wolf 2004,
for dead units), or by the mean distance to its k nearest training codes. The threshold is split
conformal (Vovk et al. 2005): the ceil((n + 1)(1 - rate))-th smallest score of n normal rows that
the model was not trained on; a further normal row exceeds it with at most this rate.
"""

import dataclasses
import hashlib
import json
import math
from typing import Any

import jax
import numpy as np
from flax import nnx

from aejax.data.sources.base import Source, file_rows
from aejax.data.sources.splits import take
from aejax.errors import InputError
from aejax.evaluation import likelihood
from aejax.evaluation.row_errors import stream_errors, worst_columns
from aejax.evaluation.rows import stream
from aejax.models.interfaces import Trainable
from aejax.runs import folder, manifests
from aejax.runs.loading import Model

RECORD, ARRAYS = "anomaly.json", "anomaly.npz"
SCORES = ("error", "mahalanobis", "knn", "elbo")
NEIGHBOURS = 5
_FORMAT = 1
_EXPLAINED = 10  # flagged rows whose columns are told
_SAMPLES = 16  # codes drawn for a row's ELBO
_MOST_CODES = 20_000  # training codes, evenly spaced if there are more
_MOST_NUMBERS = 4096  # largest code for which a covariance is computed


def scores_of(settings: Trainable) -> tuple[str, ...]:
    """The scores that a model with these settings has."""
    return tuple(name for name in SCORES if name != "elbo" or settings.has_posterior)


def check_score(settings: Trainable, score: str) -> None:
    """Raises InputError for a score that a model with these settings does not have."""
    accepted = scores_of(settings)
    if score not in accepted:
        why = " (needs a variational code)" if score in SCORES else ""
        raise InputError(f"--score={score}: must be {' or '.join(accepted)}{why}")


def digest(model: Model) -> str:
    """A digest of a model's parameters and of its preparation's statistics."""
    found = hashlib.sha256(json.dumps(model.run.statistics, sort_keys=True).encode())
    for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model.module))):
        found.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
    return found.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class TrainingCodes:
    """Codes of training rows, with which those of other rows are compared.

    Attributes:
        codes: [rows, numbers].
        mean: over rows, [numbers].
        precision: inverse covariance [numbers, numbers]; empty where a code has too many numbers.
    """

    codes: np.ndarray
    mean: np.ndarray
    precision: np.ndarray

    def mahalanobis(self, z: np.ndarray) -> np.ndarray:
        """Distance of each code, [rows]."""
        away = z.astype(np.float64) - self.mean
        return np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", away, self.precision, away), 0))

    def knn(self, z: np.ndarray) -> np.ndarray:
        """Mean distance of each code to its nearest training codes, [rows]."""
        from sklearn.neighbors import NearestNeighbors

        nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(self.codes))).fit(self.codes)
        return nearest.kneighbors(z)[0].mean(axis=1)


def fit(model: Model, train: Source) -> TrainingCodes:
    """Codes of training rows, evenly taken, and their covariance."""
    from sklearn.covariance import LedoitWolf

    count = min(len(train), _MOST_CODES)
    rows = take(train, np.linspace(0, len(train) - 1, count).round().astype(np.int64))
    z = codes_and_errors(model, rows)[0]
    if z.shape[1] > _MOST_NUMBERS:
        return TrainingCodes(z, z.mean(axis=0), np.zeros((0, 0)))
    found = LedoitWolf().fit(z.astype(np.float64))
    return TrainingCodes(z, found.location_, np.linalg.pinv(found.covariance_, hermitian=True))


def codes_and_errors(model: Model, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Codes [rows, numbers], and the reconstruction error of each row as `Model.score` has it."""
    codes, errors = [], []
    for each in stream_errors(model, source):
        errors.append(np.average(each.error, axis=1, weights=each.real))
        codes.append(each.z)
    return np.concatenate(codes), np.concatenate(errors)


def score(
    model: Model, source: Source, training_codes: TrainingCodes, names: tuple[str, ...]
) -> dict[str, Any]:
    """{score: [rows]} of each row; larger is stranger."""
    out: dict[str, np.ndarray] = {}
    if set(names) & {"error", "mahalanobis", "knn"}:
        z, error = codes_and_errors(model, source)
        if "error" in names:
            out["error"] = error
        if "mahalanobis" in names and training_codes.precision.size:
            out["mahalanobis"] = training_codes.mahalanobis(z)
        if "knn" in names:
            out["knn"] = training_codes.knn(z)
    if "elbo" in names:
        bound = likelihood.measure(model, source, _SAMPLES)
        rows = [batch.values for batch in stream(model, source, bound, numbered=True)]
        out["elbo"] = np.concatenate([each["kl"] - each["log_p"] for each in rows])
    return out


def threshold(scores: np.ndarray, rate: float) -> float | None:
    """The score that at most `rate` of further normal rows exceed; None for too few rows.

    Args:
        scores: of normal rows that the model was not trained on.
        rate: of false alarms, between 0 and 1.
    """
    rank = math.ceil((len(scores) + 1) * (1 - rate))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else None


def serialise(
    model: Model, training_codes: TrainingCodes, record: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The contents of a run's two files: anomaly.json as text, and the arrays of anomaly.npz."""
    data = {"format": _FORMAT, "step": model.step, "model": digest(model), **record}
    return json.dumps(data, indent=1) + "\n", dataclasses.asdict(training_codes)


@dataclasses.dataclass(frozen=True)
class Detector:
    """The score and threshold of a run's folder, to flag rows.

    Attributes:
        score: its name, in `SCORES`.
        threshold: rows with a higher score are flagged; None if there were too few normal rows.
        record: contents of anomaly.json.
        training_codes: with which codes are compared.
    """

    score: str
    threshold: float | None
    record: dict[str, Any]
    training_codes: TrainingCodes


def read(workdir: str, model: Model, asker: str) -> Detector | None:
    """The detector that the task `anomaly` wrote to a run's folder; None if there is none.

    Args:
        workdir: the run's folder.
        model: the model of the codes.
        asker: the setting that needs it, for the error.

    Raises:
        InputError: damaged files, or a detector of other parameters.
    """
    name = folder.path(workdir, RECORD)
    try:
        with open(name) as file:
            record = json.load(file)
        kind, limit, known = record["score"], record["threshold"], record["model"]
        with np.load(folder.path(workdir, ARRAYS)) as arrays:
            training_codes = TrainingCodes(
                **{key.name: arrays[key.name] for key in dataclasses.fields(TrainingCodes)}
            )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{name}: damaged ({error}); {_advice(workdir)}") from None
    if known != digest(model):
        step = record["step"]
        there = step != model.step and step in manifests.steps(workdir)
        raise InputError(
            f"{asker}: the threshold in {name} is of step {step}, these parameters are of"
            f" step {model.step}; {f'give --step={step}, or ' * there}{_advice(workdir)}"
        )
    return Detector(kind, limit, record, training_codes)


def flagged(workdir: str, model: Model, source: Source) -> dict[str, np.ndarray]:
    """The score of each row, and whether it is above the threshold of the run's folder.

    Args:
        workdir: the run's folder.
        model: `rows.rescaled` to the source.
        source: rows of the model's shape.

    Raises:
        InputError: the folder has no threshold, or one of other parameters.
    """
    detector = read(workdir, model, "--flag")
    if detector is None:
        raise InputError(f"--flag: {workdir} keeps no threshold; {_advice(workdir)}")
    if detector.threshold is None:
        name = folder.path(workdir, RECORD)
        raise InputError(
            f"--flag: {name} has no threshold, for want of normal rows; {_advice(workdir)}"
        )
    found = score(model, source, detector.training_codes, (detector.score,))[detector.score]
    return {"score": found, "flagged": ~(found <= detector.threshold)}


def why_flagged(
    source: Source, found: dict[str, np.ndarray], columns: list[str], errors: np.ndarray
) -> list[str]:
    """A line for each of the strangest flagged rows of a table: the two columns with most error.

    Args:
        source: the rows.
        found: as `flagged` returns it.
        columns: names.
        errors: of each column, [rows, columns].
    """
    order = np.argsort(-found["score"], kind="stable")
    numbers, lines = file_rows(source), []
    for row in order[found["flagged"][order]][:_EXPLAINED]:
        own = row if numbers is None else numbers[row]
        where = f" (row {own} of the file)" if own != row else ""
        lines.append(
            f"row {row}{where}: score {found['score'][row]:.4g}; most error in"
            f" {worst_columns(errors[row], columns)}"
        )
    return lines


def _advice(workdir: str) -> str:
    return f"python -m launch.evaluate --workdir={workdir} --tasks=anomaly makes one"
