"""Task: generated rows, decoded from random codes, and their distance to real ones.

Codes are drawn from the model's prior, if it has one, and from a Gaussian mixture that is fitted to
codes of training rows. Pictures show these samples, interpolations between rows, traversals of
single numbers of a code, and the plane of a code of two numbers. Frechet distances use the features
of a classifier that is trained here.
"""

import math

import numpy as np

from aejax import pictures
from aejax.data.sources.base import Source, Spec
from aejax.data.sources.splits import take
from aejax.errors import InputError
from aejax.evaluation import drawing, frechet, plots
from aejax.evaluation.encoded import Encoded, encode_rows, evenly, peak_of
from aejax.evaluation.result import Figure, Number, Result, need_autoencoder, need_whole
from aejax.evaluation.rows import rescaled
from aejax.evaluation.symbols import are_symbols
from aejax.evaluation.traversal import manifold, traversal
from aejax.runs.folder import Run
from aejax.runs.loading import Model

_SIDE, _PAIRS, _STEPS = 10, 8, 10
_SHOWN = _SIDE * _SIDE
# Most rows of a Frechet distance, and training rows; fewer if rows or codes are large.
_MOST_COMPARED, _MOST_LEARNED, _MOST_NUMBERS = 10_000, 60_000, 2**26
# Codes with a smaller sine of their angle count as parallel, and are interpolated linearly.
_PARALLEL = 1e-4
_MEANINGS = {
    "samples": "decoded codes of the prior",
    "samples_mixture": "decoded codes of the mixture",
    "reconstructions": "reconstructions",
    "floor": "training rows",
}


def check(run: Run, spec: Spec) -> None:
    """Raises InputError where the task cannot be done."""
    need_autoencoder(run, "--tasks=generate")
    need_whole(spec, "--tasks=generate")


def task(model: Model, source: Source, learned: Source, components: int | None = None) -> Result:
    """Decodes random codes (by the run's seed), and compares the results with real rows.

    Args:
        model: `rows.rescaled` to the source.
        source: rows to compare with.
        learned: rows of the run's training split: the mixture is fitted to their codes, and the
            classifier of the Frechet distances to their labels.
        components: of the mixture; None for 10, or as many as there are training rows.

    Raises:
        InputError: a model without encode and decode, rows with padding or missing values, or
            more components than training rows.
    """
    check(model.run, source.spec)
    numbers_a_row = max(math.prod(source.spec.shape), math.prod(model.code_shape))
    most = max(1, _MOST_NUMBERS // numbers_a_row)
    learned = take(learned, evenly(len(learned), min(_MOST_LEARNED, most)))
    fitted = min(len(learned), drawing.MOST_ROWS)
    if components is not None and not 1 <= components <= fitted:
        raise InputError(
            f"--components={components}: must be at least 1 and at most the number of training"
            f" rows that the mixture is fitted to, {fitted}"
        )
    rows = encode_rows(model, source)
    train = encode_rows(rescaled(model, learned.spec), learned)
    count = min(len(rows.x), len(train.x), _MOST_COMPARED, most)
    components = components or min(drawing.COMPONENTS, fitted)
    sources, notes = drawing.draw(model, train.z, components, max(count, _SHOWN))
    samples = {name: _decode(model, drawn.z) for name, drawn in sources.items()}
    numbers = _distances({name: made[:_SHOWN] for name, made in samples.items()}, rows.x)
    compared = {name: made[:count] for name, made in samples.items()}
    found, why = _frechet(model, rows, train, compared, count)
    if not pictures.is_image(source.spec.shape):
        notes.append(f"No pictures: rows of shape {source.spec.shape} are not images.")
        return Result(numbers | found, notes=[*notes, *why])
    peak = peak_of(model, source, rows.x)
    figures = []
    for name, drawn in sources.items():
        grid = samples[name][:_SHOWN].reshape(_SIDE, _SIDE, *source.spec.shape) / peak
        caption = f"What the decoder makes of codes drawn from {drawn.origin}."
        figures.append(Figure(name, plots.grid_png(grid), caption))
    figures += _interpolation(model, source, rows)
    figures += traversal(model, source, rows)
    if rows.z.shape[1] == 2:
        figures.append(manifold(model, source, rows))
    return Result(numbers | found, figures, notes=[*notes, *why])


def _decode(model: Model, z: np.ndarray) -> np.ndarray:
    """Codes [rows, numbers] -> rows [rows, elements] in `Model.decode`'s units."""
    return model.decode(z.reshape(-1, *model.code_shape)).reshape(len(z), -1)


def _interpolation(model: Model, source: Source, rows: Encoded) -> list[Figure]:
    """Codes between those of the first rows in pairs; no figure of a single row."""
    z, pairs = rows.z, min(_PAIRS, len(rows.z) // 2)
    if not pairs:
        return []
    path = spherical if model.run.config.model.has_posterior else linear
    between = path(z[0 : 2 * pairs : 2], z[1 : 2 * pairs : 2], np.linspace(0, 1, _STEPS))
    decoded = _decode(model, between.reshape(-1, z.shape[1]))
    grid = decoded.reshape(pairs, _STEPS, *source.spec.shape) / peak_of(model, source, rows.x)
    ways = {linear: "straight lines", spherical: "arcs of a circle (spherical interpolation)"}
    caption = (
        f"The first {2 * pairs} rows in pairs, reconstructed at the left and right ends, and"
        f" {_STEPS - 2} codes between theirs, evenly along {ways[path]}."
    )
    return [Figure("interpolation", plots.grid_png(grid), caption)]


def linear(first: np.ndarray, last: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(1 - t) first + t last: two [pairs, numbers], steps [n] -> [pairs, n, numbers]."""
    t = steps[:, None]
    return (1 - t) * first[:, None] + t * last[:, None]


def spherical(first: np.ndarray, last: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Shoemake's (1985) arc, as White (2016, "Sampling Generative Networks") uses it.

        sin((1 - t) angle) / sin(angle) first + sin(t angle) / sin(angle) last

    Interpolated codes keep about the length of codes of a normal prior; on a straight line they
    would be shorter than those that the decoder was trained on.

    Args:
        first, last: [pairs, numbers].
        steps: t [n].

    Returns:
        [pairs, n, numbers].
    """
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(last, axis=1)
    products = np.sum(first * last, axis=1)
    cosine = np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), 1)
    angle = np.arccos(np.clip(cosine, -1, 1))[:, None, None]
    t, sine = steps[:, None], np.sin(angle)
    safe = np.where(sine > _PARALLEL, sine, 1)
    arc = (np.sin((1 - t) * angle) * first[:, None] + np.sin(t * angle) * last[:, None]) / safe
    return np.where(sine > _PARALLEL, arc, linear(first, last, steps))


def _frechet(
    model: Model, rows: Encoded, train: Encoded, samples: dict[str, np.ndarray], count: int
) -> tuple[dict[str, Number], list[str]]:
    """Distances of samples and reconstructions to evaluated rows, and notes on those left out.

    Args:
        model: its run's seed initialises the classifier.
        rows: evaluated rows.
        train: training rows.
        samples: decoded samples [count, elements], by their source.
        count: rows of each set, evenly spaced.
    """
    label, why = train.label, ""
    if are_symbols(model):
        why = "differences of symbols mean nothing"
    elif label is None:
        why = "it takes features of a classifier, and the training rows have no labels"
    elif len(np.unique(label)) < 2:
        why = "it takes features of a classifier, and the training rows are of one class"
    elif count < 2:
        why = "it takes at least two rows"
    if why or label is None:
        return {}, [f"No Frechet distance: {why}."]
    # Columns of a table have units of their own.
    columns = bool(model.run.spec.columns)
    features = frechet.fit(train.x, label, model.run.config.seed, each=columns)
    some = evenly(len(rows.x), count)
    real = features(rows.x[some])
    sets = {
        **samples,
        "reconstructions": _decode(model, rows.z[some]),
        "floor": train.x[evenly(len(train.x), count)],
    }
    out = {
        f"frechet_{name}": Number(
            frechet.distance(features(each), real),
            "",
            f"squared Frechet distance of {_MEANINGS[name]} and as many evaluated rows",
            main=True,
        )
        for name, each in sets.items()
    }
    out["frechet_rows"] = Number(count, "rows", "in each set that is compared")
    notes = [
        "Frechet distances are on the last hidden layer of a classifier that is trained here on"
        f" {len(train.x)} training rows: they are no FID, and are to be compared on the same data"
        " alone. The floor holds what the number of rows and the split leave of 0."
    ]
    if rows.label is None:
        notes.append("No accuracy of the classifier: the evaluated rows have no labels.")
    else:
        accuracy = features.accuracy(rows.x, rows.label)
        meaning = "share of evaluated rows whose class the classifier of these distances tells"
        out["frechet_accuracy"] = Number(accuracy, "", meaning)
    return out, notes


def _distances(samples: dict[str, np.ndarray], x: np.ndarray) -> dict[str, Number]:
    """Distances of samples to the nearest rows, and of rows to each other."""
    out = {
        f"to_rows_{name}": Number(
            float(_nearest(made, x, False).mean()),
            "",
            f"root mean squared difference of {_MEANINGS[name]} and the nearest evaluated row",
            main=True,
        )
        for name, made in samples.items()
    }
    if (count := min(_SHOWN, len(x) - 1)) > 0:
        out["row_to_rows"] = Number(
            float(_nearest(x[:count], x, True).mean()),
            "",
            f"the same of each of the first {count} rows and the nearest other one",
        )
    return out


def _nearest(rows: np.ndarray, others: np.ndarray, same: bool) -> np.ndarray:
    """Root mean squared difference of each row to the nearest of others; `same`: except itself."""
    rows, others = rows.astype(np.float64), others.astype(np.float64)
    squares = np.square(rows).sum(1)[:, None] + np.square(others).sum(1) - 2 * rows @ others.T
    if same:
        squares[np.arange(len(rows)), np.arange(len(rows))] = np.inf
    return np.sqrt(np.maximum(squares.min(axis=1), 0) / rows.shape[1])
