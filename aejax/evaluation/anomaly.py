"""Task: anomaly detection by several scores, compared with detectors without an autoencoder.

Areas under curves have intervals of 95 % by the bootstrap (1,000 draws of normal and of anomalous
rows, the same for all scores).
"""

import math

import jax
import numpy as np

from aejax.data.sources.base import Source, Spec
from aejax.data.sources.labels import described, labels_of, numbers_of
from aejax.data.sources.splits import take
from aejax.errors import InputError
from aejax.evaluation import detector, principal
from aejax.evaluation.anomaly_report import RANKING, histogram, ranking, worst_images
from aejax.evaluation.result import Number, Result, need_autoencoder
from aejax.evaluation.rows import stream
from aejax.evaluation.symbols import are_symbols
from aejax.runs.folder import Run
from aejax.runs.loading import Model

_DRAWS, _DRAWS_AT_A_TIME = 1000, 50
_SVM_ROWS, _BASELINE_ROWS = 2000, 20_000
_MEANINGS = {
    "error": "reconstruction error",
    "mahalanobis": "Mahalanobis distance of the code to training codes",
    "knn": f"mean distance of the code to its {detector.NEIGHBOURS} nearest training codes",
    "elbo": "negative evidence lower bound",
    "pca": "reconstruction error of PCA with as many components as the code has numbers",
    "svm": f"one-class SVM (nu 0.1, at most {_SVM_ROWS} training rows)",
    "forest": "isolation forest",
}


def check(
    run: Run, spec: Spec, normal: str = "", score: str = "error", false_alarms: float = 0.05
) -> None:
    """Raises InputError if the task cannot be done, or an option is not accepted."""
    need_autoencoder(run, "--tasks=anomaly")
    if normal and not spec.labelled:
        raise InputError(f"--normal={normal}: the rows have no labels; must have one each")
    numbers_of(normal, spec.classes, "--normal")
    detector.check_score(run.config.model, score)
    if not 0 < false_alarms < 1:
        raise InputError(f"--false_alarms={false_alarms:g}: must be above 0 and below 1")


def task(
    model: Model,
    source: Source,
    learned: Source,
    normal: str = "",
    score: str = "error",
    false_alarms: float = 0.05,
) -> Result:
    """Scores rows, compares normal ones with the others, and sets a threshold.

    A random half of the normal rows (seed 0) sets the threshold (split conformal); the rate of
    false alarms is measured on the other half. The model must not have been trained on them.

    Args:
        model: `rows.rescaled` to the source.
        source: rows of all labels.
        learned: rows of the run's training split; codes are compared with those of the normal ones.
        normal: labels that are normal, as 3 or 3,5, or names of their classes; "" for the run's
            `data.keep_labels`.
        score: the score of threshold and ranking: error, mahalanobis, knn or elbo.
        false_alarms: the threshold's rate of false alarms.

    Raises:
        InputError: a model without encode and decode, a wrong option, or no normal rows.
    """
    check(model.run, source.spec, normal, score, false_alarms)
    kept = _normal(model, normal, source)
    train = learned
    if kept and train.spec.labelled:
        train = take(train, np.flatnonzero(np.isin(labels_of(train), kept)))
        if not len(train):
            raise InputError(f"--normal={normal}: no training row has such a label")
    training_codes = detector.fit(model, train)
    if score == "mahalanobis" and not training_codes.precision.size:
        raise InputError("--score=mahalanobis: the code has too many numbers; accepted: error, knn")
    scores = detector.score(
        model, source, training_codes, detector.scores_of(model.run.config.model)
    )
    notes = [] if "mahalanobis" in scores else ["No Mahalanobis distance: the code is too large."]
    others, why_not = _baselines(model, source, train)
    scores |= others
    notes += why_not
    scores = {name: np.nan_to_num(each, nan=np.inf) for name, each in scores.items()}
    label = labels_of(source) if source.spec.labelled else None
    strange = None if label is None or not kept else ~np.isin(label, kept)
    numbers = _areas(scores, strange, notes)
    limit = _threshold(scores[score], strange, false_alarms, numbers, (kept, notes))
    record = {
        "score": score,
        "threshold": limit,
        "false_alarms": false_alarms,
        "calibration_rows": numbers["calibration_rows"].value,
        "normal": kept,
    }
    text, arrays = detector.serialise(model, training_codes, record)
    notes.append(
        f"{len(source)} rows of all labels, ranked by {score}; codes are compared with those of"
        f" {len(training_codes.codes)} training rows."
    )
    order = np.argsort(-scores[score], kind="stable")
    figures = [histogram(scores[score], strange, score, _MEANINGS[score], limit)]
    figures += worst_images(model, source, order)
    ranked, strangest, meaning = ranking(model, source, order, scores[score])
    notes.append(meaning)
    return Result(
        numbers,
        figures,
        {detector.ARRAYS: arrays},
        notes,
        {detector.RECORD: text, RANKING: ranked},
        [strangest],
    )


def _normal(model: Model, normal: str, source: Source) -> list[int]:
    """The normal labels; empty if neither option nor settings name them.

    Raises:
        InputError: labels that no row has.
    """
    if not normal:
        return list(model.run.config.data.keep_labels)
    classes = source.spec.classes
    found = numbers_of(normal, classes, "--normal")
    there = np.unique(labels_of(source)).tolist()
    if missing := [each for each in found if each not in there]:
        raise InputError(
            f"--normal={normal}: no row has label {described(missing[:1], classes)}; accepted:"
            f" {described(there, classes)}"
        )
    return found


def _areas(
    scores: dict[str, np.ndarray], strange: np.ndarray | None, notes: list[str]
) -> dict[str, Number]:
    if strange is None or strange.all() or not strange.any():
        notes.append("No AUROC: it takes labels, and normal rows beside others (--normal=LABELS).")
        return {}
    from sklearn.metrics import average_precision_score, roc_auc_score

    out = {}
    for name, values in scores.items():
        values = np.minimum(values, np.finfo(np.float64).max)
        found = roc_auc_score(strange, values), average_precision_score(strange, values)
        bounds = intervals(values, strange)
        pairs = zip(("auroc", "ap"), found, bounds, strict=True)
        for kind, value, (low, high) in pairs:
            main = kind == "auroc" and name != "elbo"
            what = "area under the ROC curve" if kind == "auroc" else "average precision"
            meaning = f"{what}, {_MEANINGS[name]} (95 %: {low:.4f} to {high:.4f})"
            out[f"{name}_{kind}"] = Number(float(value), "", meaning, main)
            out[f"{name}_{kind}_low"] = Number(low, "", f"lower end of 95 % for {name}_{kind}")
            out[f"{name}_{kind}_high"] = Number(high, "", f"upper end of 95 % for {name}_{kind}")
    out["normal_rows"] = Number(int((~strange).sum()), "rows", "evaluated that are normal")
    out["anomalous_rows"] = Number(int(strange.sum()), "rows", "evaluated that are not")
    return out


def intervals(score: np.ndarray, strange: np.ndarray, draws: int = _DRAWS) -> np.ndarray:
    """95 % intervals by the bootstrap: [AUROC and average precision, (low, high)].

    Args:
        score: [rows]; larger is stranger.
        strange: bool [rows], with both kinds.
        draws: how many (seed 0), each with the same numbers of normal and strange rows.
    """
    order = np.argsort(-score, kind="stable")
    score, strange = score[order], strange[order]
    ends = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    random, found = np.random.RandomState(0), []
    places = [np.flatnonzero(strange == kind) for kind in (True, False)]
    for start in range(0, draws, _DRAWS_AT_A_TIME):
        count = min(_DRAWS_AT_A_TIME, draws - start)
        sums = []
        for place in places:
            weight = np.zeros((count, len(score)), np.float32)
            drawn = random.multinomial(len(place), np.full(len(place), 1 / len(place)), count)
            weight[:, place] = drawn
            sums.append(weight.cumsum(axis=1, dtype=np.float64)[:, ends] / len(place))
        hit, alarm = (np.pad(each, ((0, 0), (1, 0))) for each in sums)
        area = np.trapezoid(hit, alarm, axis=1)
        hits, alarms = hit[:, 1:] * len(places[0]), alarm[:, 1:] * len(places[1])
        precision = hits / np.maximum(hits + alarms, 1)
        found.append(np.stack([area, (np.diff(hit, axis=1) * precision).sum(axis=1)]))
    return np.quantile(np.concatenate(found, axis=1), (0.025, 0.975), axis=1).T


def _threshold(
    values: np.ndarray,
    strange: np.ndarray | None,
    rate: float,
    numbers: dict[str, Number],
    about: tuple[list[int], list[str]],
) -> float | None:
    """The threshold, with its numbers; None where normal rows are unknown or too few."""
    kept, notes = about
    known = strange is not None or not kept
    normal = np.arange(len(values)) if strange is None else np.flatnonzero(~strange)
    if not known:
        normal = normal[:0]
        notes.append("No threshold: the rows have no labels that say which are normal.")
    elif strange is None:
        notes.append("All evaluated rows are taken to be normal for the threshold.")
    mixed = np.random.RandomState(0).permutation(normal)
    half = -(-len(mixed) // 2)
    limit = detector.threshold(values[mixed[:half]], rate) if half else None
    numbers["calibration_rows"] = Number(half, "rows", "normal rows that set the threshold")
    if limit is None:
        if known:
            notes.append(
                f"No threshold at a rate of {rate:g}: {half} calibration rows; must be at least"
                f" {math.ceil(1 / rate) - 1}."
            )
        return None
    numbers["threshold"] = Number(limit, "", f"score above which a row is flagged; rate {rate:g}")
    rest = values[mixed[half:]]
    if len(rest):
        alarms = float(np.mean(rest > limit))
        numbers["false_alarms"] = Number(
            alarms, "", f"share of the other {len(rest)} normal rows that are flagged", True
        )
    if strange is not None and strange.any():
        hits = float(np.mean(values[strange] > limit))
        numbers["detected"] = Number(hits, "", "share of anomalous rows that are flagged", True)
    notes.append(
        f"The threshold is split conformal, set by {half} of the evaluated normal rows, none of"
        " which is a training row; where the step was chosen by the same split it is a little low."
    )
    return limit


def _baselines(
    model: Model, source: Source, train: Source
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Scores of detectors that are fitted to prepared rows, and notes on those left out."""
    spec = source.spec
    elements, code = math.prod(spec.shape), math.prod(model.code_shape)
    if spec.padded or spec.missing or train.spec.missing or are_symbols(model):
        return {}, ["No detectors beside it: rows have padding, missing values or symbols."]
    if elements > principal.MAX_ELEMENTS:
        return {}, [f"No detectors beside it: rows of more than {principal.MAX_ELEMENTS} elements."]
    from sklearn.ensemble import IsolationForest
    from sklearn.svm import OneClassSVM

    def prepared(rows: Source, function=lambda x: x) -> np.ndarray:
        def run(module, raw: jax.Array, mask) -> jax.Array:
            x = model.preparation.measured(model.preparation(raw))
            return x.reshape(len(raw), -1)

        return np.concatenate([function(batch.values) for batch in stream(model, rows, run)])

    count = min(len(train), _BASELINE_ROWS)
    x = prepared(take(train, np.linspace(0, len(train) - 1, count).round().astype(np.int64)))
    some = x[np.linspace(0, count - 1, min(count, _SVM_ROWS)).round().astype(np.int64)]
    svm = OneClassSVM(nu=0.1).fit(some)
    forest = IsolationForest(random_state=0).fit(x)
    out, notes = {}, []
    if code < elements:
        components = principal.fit([x], code)
        out["pca"] = prepared(
            source, lambda rows: np.square(rows - components.reconstruct(rows)).mean(axis=1)
        )
    else:
        notes.append(f"No PCA beside it: a code of {code} numbers is no smaller than a row.")
    out["svm"] = prepared(source, lambda rows: -svm.score_samples(rows))
    out["forest"] = prepared(source, lambda rows: -forest.score_samples(rows))
    return out, notes
