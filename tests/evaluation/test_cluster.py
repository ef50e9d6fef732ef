"""The cluster task: its scores against scikit-learn's, and what it says of known clusters."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, adjusted_rand_score, normalized_mutual_info_score

from aejax.errors import InputError
from aejax.evaluation import checkpoints, cluster

RANDOM = np.random.RandomState(0)
Y = np.arange(300) % 3
BLOBS = RANDOM.uniform(0, 40, (300, 4, 4, 1))
BLOBS[Y == 1, :2] += 180
BLOBS[Y == 2, 2:] += 180
BLOBS = BLOBS.astype(np.uint8)


def test_agreement_counts_rows_of_matched_clusters():
    label = np.array([5, 5, 5, 5, 7, 7, 7, 9, 9, 9])
    assigned = np.array([1, 1, 1, 0, 0, 0, 0, 1, 1, 2])
    found = cluster.agreement(assigned, label)
    named = np.array([7, 5, 9])[assigned]
    assert found["accuracy"] == accuracy_score(label, named) == 0.7
    assert found["majority"] == 0.7
    same = cluster.agreement(2 - assigned, assigned)
    assert [same[name] for name in ("accuracy", "nmi", "ari")] == pytest.approx([1, 1, 1])
    # Two clusters of one class: majority counts both, the matching one of them.
    split = cluster.agreement(np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1]))
    assert (split["majority"], split["accuracy"]) == (1.0, 0.75)


def test_clusters_of_known_blobs_are_found(make):
    one = make(latent_dim=3, x_train=BLOBS, x_test=BLOBS, y_train=Y, y_test=Y)
    result = cluster.task(one.model, one.test)
    values = result.values()
    assert values["clusters"] == 3
    for space in ("", "pca_", "pixel_"):
        names = [space + name for name in ("accuracy", "majority", "nmi", "ari")]
        assert [values[name] for name in names] == pytest.approx([1, 1, 1, 1])
        assert 0.5 < values[f"{space}silhouette"] <= 1
        assert 0.6 < values[f"{space}accuracy_mean"] <= 1
    names = [figure.name for figure in result.figures]
    assert names == ["cluster_map", "cluster_labels", "cluster_centres"]
    # Each cluster has the colour of its class, so that the maps are equal.
    assert result.figures[0].png == result.figures[1].png
    assert cluster.task(one.model, one.test) == result


def test_without_labels_or_pictures_there_is_a_note_for_each(make):
    rows = RANDOM.uniform(size=(40, 6)).astype(np.float32)
    one = make(latent_dim=1, x_train=rows, x_test=rows)
    result = cluster.task(one.model, one.test)
    assert set(result.numbers) == {"clusters", *(f"{s}silhouette" for s in ("", "pca_", "pixel_"))}
    assert result.values()["clusters"] == 10 and not result.figures
    assert any("no labels" in note for note in result.notes)
    assert any("not images" in note for note in result.notes)
    for wrong in (1, 41):
        with pytest.raises(InputError, match=f"--clusters={wrong}: must be at least 2"):
            cluster.task(one.model, one.test, clusters=wrong)
    wide = make(latent_dim=6, x_train=rows, x_test=rows)
    found = cluster.task(wide.model, wide.test, clusters=2)
    assert "pca_silhouette" not in found.numbers and "No principal components" in found.notes[0]


def test_many_rows_are_clustered_in_minibatches(monkeypatch):
    monkeypatch.setattr(cluster, "_MOST_ROWS", 200)
    assigned = cluster.assign(BLOBS.reshape(300, -1) / 255.0, 3, 0)[0]
    assert cluster.agreement(assigned, Y)["accuracy"] == 1


def test_pixels_of_the_digits_give_scikit_learns_own_scores(folder):
    request = checkpoints.check_request(str(folder), ("cluster",), split="all", clusters=10)
    found = checkpoints.evaluate_request(request, say=lambda line: None)["tasks"]["cluster"]
    x, y = load_digits(return_X_y=True)
    seen = request.rows.source[slice(0, len(x))]
    order = np.array(seen.x, np.float64).reshape(len(x), -1)
    starts = [
        KMeans(10, n_init=1, random_state=seed).fit((order / 16).astype(np.float32))
        for seed in range(cluster.STARTS)
    ]
    best = min(starts, key=lambda means: means.inertia_).labels_
    assert sorted(map(tuple, order.astype(int))) == sorted(map(tuple, x.astype(int)))
    assert np.array_equal(np.bincount(seen.label), np.bincount(y))
    wanted = normalized_mutual_info_score(seen.label, best)
    assert found["pixel_nmi"] == pytest.approx(wanted, abs=1e-9)
    assert found["pixel_ari"] == pytest.approx(adjusted_rand_score(seen.label, best), abs=1e-9)
    accuracies = [cluster.agreement(means.labels_, seen.label)["accuracy"] for means in starts]
    assert found["pixel_accuracy_mean"] == pytest.approx(np.mean(accuracies), abs=1e-9)
    assert found["pixel_accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1), abs=1e-9)
    assert (folder / "figures" / "cluster_map.png").exists()
