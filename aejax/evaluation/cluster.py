"""Task: do k-means clusters of codes agree with the classes better than those of pixels do?

Lloyd's k-means from 20 k-means++ starts (Arthur and Vassilvitskii 2007) on pixels, on their
principal components and on codes. Reported are the start with the best k-means objective, and mean
and deviation over the starts. Labels are used for the comparison alone.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from aejax import cluster, pictures
from aejax.data.sources.base import Source, Spec
from aejax.errors import InputError
from aejax.evaluation import plots, principal
from aejax.evaluation.encoded import Encoded, encode_rows, evenly, peak_of
from aejax.evaluation.result import Figure, Number, Result, need_autoencoder, need_whole
from aejax.evaluation.symbols import are_symbols
from aejax.runs.folder import Run
from aejax.runs.loading import Model

CLUSTERS = 10  # without labels
STARTS = 20
# With more rows than this, k-means uses mini-batches (MiniBatchKMeans).
_MOST_ROWS = 20_000
_MINIBATCH = 4096
_SILHOUETTE_ROWS = 2000
_MOST_SHOWN = 20
_NAMES = {"": "codes", "pca_": "principal components", "pixel_": "pixels"}


def check(run: Run, spec: Spec) -> None:
    """Raises InputError where the task cannot be done."""
    need_autoencoder(run, "--tasks=cluster")
    need_whole(spec, "--tasks=cluster")


def task(model: Model, source: Source, clusters: int | None = None) -> Result:
    """Clusters codes, principal components and pixels, and compares the clusters with labels.

    Args:
        model: `rows.rescaled` to the source.
        source: rows to cluster; their labels are used for the comparison alone.
        clusters: how many; None for the number of classes, or 10 without labels.

    Raises:
        InputError: a model without encode, rows with padding, or more clusters than rows.
    """
    check(model.run, source.spec)
    if clusters is not None and not 2 <= clusters <= len(source):
        raise InputError(
            f"--clusters={clusters}: must be at least 2 and at most the number of rows,"
            f" {len(source)}"
        )
    rows = encode_rows(model, source)
    if clusters is None:
        clusters = CLUSTERS if rows.label is None else len(np.unique(rows.label))
        clusters = max(2, min(clusters, len(source)))
    seed = model.run.config.seed
    spaces, notes = _spaces(rows, are_symbols(model))
    numbers = {"clusters": Number(clusters, "", "that k-means makes")}
    found = {}
    for name, space in spaces.items():
        tries = assign(space, clusters, seed)
        found[name] = tries[0]
        numbers |= _judged(name, space, found[name], rows.label)
        if rows.label is not None:
            numbers |= _spread(name, tries, rows.label)
    if rows.label is None:
        notes.append("No accuracy, NMI or ARI: the source has no labels.")
    notes.append(
        f"k-means++ with {STARTS} starts and seed {seed}, on {len(rows.z)} rows"
        + (f"; each step takes {_MINIBATCH} of them." if len(rows.z) > _MOST_ROWS else ".")
    )
    figures = _maps(rows, found[""], source) if rows.z.shape[1] > 1 else []
    if pictures.is_image(source.spec.shape):
        figures.append(_centres(model, source, rows, found[""]))
    else:
        notes.append(f"No pictures of centres: rows of shape {source.spec.shape} are not images.")
    return Result(numbers, figures, notes=notes)


def _spaces(rows: Encoded, symbols: bool) -> tuple[dict[str, np.ndarray], list[str]]:
    """{prefix of its numbers: points [rows, numbers]}, and what was left out."""
    out, notes = {"": rows.z}, []
    if symbols:
        return out, ["No k-means of the rows: differences of symbols mean nothing."]
    (count, code), elements = rows.z.shape, rows.x.shape[1]
    if code >= min(elements, count):
        notes.append(f"No principal components: a code of {code} numbers is no smaller than a row.")
    elif elements > principal.MAX_ELEMENTS:
        notes.append(
            f"No principal components: rows have {elements} elements, more than"
            f" {principal.MAX_ELEMENTS}."
        )
    else:
        out["pca_"] = principal.fit([rows.x], code).project(rows.x.astype(np.float64))
    return out | {"pixel_": rows.x}, notes


def assign(points: np.ndarray, clusters: int, seed: int) -> list[np.ndarray]:
    """The cluster of each point, int [rows], of each start; the least sum of squares first.

    Args:
        points: [rows, numbers].
        clusters: how many.
        seed: of the first start; each further one has the next seed.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    points = points.astype(np.float32)
    settings: dict[str, Any] = {"n_clusters": clusters, "n_init": 1}
    if large := len(points) > _MOST_ROWS:
        settings["batch_size"] = _MINIBATCH
    kind: Any = MiniBatchKMeans if large else KMeans

    def fit(number: int) -> Any:
        with threadpool_limits(1, user_api="openmp"):  # of this thread
            return kind(random_state=seed + number, **settings).fit(points)

    # One start on each core: threads that share a start mostly wait for each other.
    with ThreadPoolExecutor(cluster.cores()) as pool:
        found = list(pool.map(fit, range(STARTS)))
    found.sort(key=lambda means: means.inertia_)
    return [means.labels_ for means in found]


def agreement(assigned: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Accuracies (shares of rows), NMI and ARI of clusters [rows] and labels [rows].

    `accuracy` is for the one-to-one assignment of clusters to classes with most rows right
    (Hungarian matching, Kuhn 1955); `majority` assigns each cluster the class of most of its rows.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    table = np.asarray(contingency_matrix(label, assigned))
    matched = linear_sum_assignment(table, maximize=True)
    return {
        "accuracy": float(table[matched].sum() / len(label)),
        "majority": float(table.max(axis=0).sum() / len(label)),
        "nmi": float(normalized_mutual_info_score(label, assigned)),
        "ari": float(adjusted_rand_score(label, assigned)),
    }


def _judged(
    prefix: str, points: np.ndarray, assigned: np.ndarray, label: np.ndarray | None
) -> dict[str, Number]:
    from sklearn.metrics import silhouette_score

    what, out = f"k-means on {_NAMES[prefix]}", {}
    if label is not None:
        meanings = {
            "accuracy": "share of rows in the cluster matched with their class (one to one)",
            "majority": "share of rows of their cluster's most frequent class",
            "nmi": "normalised mutual information of clusters and classes",
            "ari": "adjusted Rand index of clusters and classes; 0 is chance",
        }
        for name, value in agreement(assigned, label).items():
            out[prefix + name] = Number(value, "", f"{meanings[name]}; {what}")
    some = evenly(len(points), _SILHOUETTE_ROWS)
    value = None
    if 1 < len(np.unique(assigned[some])) < len(some):
        value = float(silhouette_score(points[some], assigned[some]))
    meaning = f"silhouette of {len(some)} rows, evenly taken; 1 is far apart; {what}"
    return out | {f"{prefix}silhouette": Number(value, "", meaning)}


def _spread(prefix: str, tries: list[np.ndarray], label: np.ndarray) -> dict[str, Number]:
    """Mean and deviation of accuracy and NMI over the starts."""
    judged = [agreement(assigned, label) for assigned in tries]
    out = {}
    for name in ("accuracy", "nmi"):
        values = [one[name] for one in judged]
        over = f"of {name} over {len(tries)} single starts; k-means on {_NAMES[prefix]}"
        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
        out[f"{prefix}{name}_mean"] = Number(mean, "", f"mean {over}", main=True)
        out[f"{prefix}{name}_sd"] = Number(deviation, "", f"standard deviation {over}")
    return out


def _maps(rows: Encoded, assigned: np.ndarray, source: Source) -> list[Figure]:
    """The codes' two leading components, coloured by cluster, and by class."""
    plane = principal.fit([rows.z], 2).project(rows.z)
    axes = ("component 1 of the codes", "component 2 of the codes")
    where = "the codes' two leading principal components, one point a row"
    if rows.label is None:
        png = plots.scatter_png(plane, assigned, axes)
        return [Figure("cluster_map", png, f"Clusters on {where}, coloured by cluster.")]
    matched, how = _matched(assigned, rows.label)
    pngs = [plots.scatter_png(plane, by, axes, source.spec.classes) for by in (matched, rows.label)]
    return [
        Figure("cluster_map", pngs[0], f"Clusters on {where}, coloured by {how}."),
        Figure("cluster_labels", pngs[1], f"The same map, {where}, coloured by true class."),
    ]


def _matched(assigned: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, str]:
    """Each row's cluster as the class that it is matched with, where their numbers are equal."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    classes, clusters = np.unique(label), np.unique(assigned)
    if len(classes) != len(clusters):
        return assigned, "the cluster's number"
    table = np.asarray(contingency_matrix(label, assigned))
    of_class, of_cluster = linear_sum_assignment(table, maximize=True)
    name = np.empty(len(clusters), label.dtype)
    name[of_cluster] = classes[of_class]
    return name[np.searchsorted(clusters, assigned)], "the class that the cluster is matched with"


def _centres(model: Model, source: Source, rows: Encoded, assigned: np.ndarray) -> Figure:
    """Mean images of the clusters above what the decoder makes of their mean codes."""
    shown = np.unique(assigned)[:_MOST_SHOWN]
    means, codes = (
        np.stack([values[assigned == one].mean(axis=0) for one in shown])
        for values in (rows.x, rows.z)
    )
    decoded = model.decode(codes.reshape(-1, *model.code_shape))
    images = np.stack([means.reshape(decoded.shape), decoded]) / peak_of(model, source, rows.x)
    return Figure(
        "cluster_centres",
        plots.grid_png(images),
        f"{len(shown)} clusters of codes: the mean image of each cluster's rows (above) and what"
        " the decoder makes of its mean code (below).",
    )
