"""The latent task: codes, what is said of them, and which pictures are drawn."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from aejax.errors import InputError
from aejax.evaluation import latent, principal
from aejax.models.bottlenecks import Variational

RANDOM = np.random.RandomState(0)
X = RANDOM.randint(0, 256, (1003, 5, 5, 1)).astype(np.uint8)
Y = RANDOM.randint(0, 10, 1003)


def test_codes_and_their_numbers(make):
    made = make(latent_dim=4, x_train=X, x_test=X, y_train=Y, y_test=Y)
    encoder = made.model.module.encoder.layers[0]
    encoder.weight[...] = encoder.weight[...].at[1].set(0)  # constant, and not 0
    encoder.bias[...] = encoder.bias[...].at[1].set(0.3)
    result = latent.task(made.model, made.test)
    arrays = result.files["codes.npz"]
    z = made.linear._replace(
        into=np.asarray(encoder.kernel[...], np.float64),
        into_bias=np.asarray(encoder.bias[...], np.float64),
    ).encode(X / np.float64(255))
    np.testing.assert_allclose(arrays["z"], z, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(arrays["label"], Y)
    np.testing.assert_array_equal(arrays["index"], np.arange(1003))
    values = result.values()
    assert values["latent_dim"] == 4 and values["dead_units"] == 1 and values["nonzero"] == 1
    assert values["mean"] == pytest.approx(z.mean(), rel=1e-5)
    assert values["variance"] == pytest.approx(z.var(axis=0).mean(), rel=1e-5)
    assert values["variance_least"] == pytest.approx(0, abs=1e-9)
    assert values["variance_largest"] == pytest.approx(z.var(axis=0).max(), rel=1e-5)
    shares = PCA(2).fit(z).explained_variance_ratio_
    assert [values["pca_1"], values["pca_2"]] == pytest.approx(list(shares), rel=1e-5)
    figure, activity = result.figures
    assert (
        activity.name == "latent_activity"
        and figure.name == "latent_pca"
        and f"{100 * shares.sum():.1f} %" in figure.caption
    )


@pytest.mark.parametrize(
    ("size", "classes", "names"),
    [
        (1, 0, ["latent"]),
        (1, 2, ["latent"]),
        (1, 40, ["latent"]),  # more than there are colours: one histogram of all
        (2, 2, ["latent", "latent_pca", "latent_activity"]),
        (3, 40, ["latent_pca", "latent_activity"]),
    ],
)
def test_figures_suit_the_size_of_the_code(make, size, classes, names):
    labels = {} if not classes else {"y_train": Y % classes, "y_test": np.arange(1003) % classes}
    made = make(latent_dim=size, x_train=X, x_test=X, **labels)
    result = latent.task(made.model, made.test)
    assert [figure.name for figure in result.figures] == names
    for figure in result.figures:
        pixels = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"), int)
        assert pixels.shape == (800, 1120, 3)
        coloured = (pixels.max(axis=2) - pixels.min(axis=2) > 80).mean()
        if figure.name == "latent_activity":
            continue
        wanted = bool(classes) and (size, classes) != (1, 40)
        assert (coloured > 0.005) == ("coloured by class" in figure.caption) == wanted
    assert ("label" in result.files["codes.npz"]) == bool(classes)


def test_a_unit_is_dead_where_it_differs_by_rounding_alone():
    z = np.tile(np.array([0.3, -2.0, 0.0, 5.0, 1e-9]), (10, 1))
    z[::2] += np.array([1e-8, -1e-6, 0.0, 1e-3, 1e-9])  # the last one is small, but doubles
    assert latent.describe(z)["dead_units"].value == 3


def test_codes_that_never_vary_are_drawn_too(make):
    made = make(latent_dim=2, x_train=X, x_test=X)
    weight = made.model.module.encoder.layers[0].weight
    weight[...] = weight[...] * 0
    result = latent.task(made.model, made.test)
    assert result.values()["dead_units"] == 2 and result.values()["pca_1"] is None
    assert len(result.figures) == 3


def test_components_far_from_the_origin_keep_their_digits():
    x = np.random.RandomState(0).randn(500, 6) * [5, 4, 3, 2, 1, 1]
    wanted = PCA(3, svd_solver="full").fit(x)
    found = principal.fit([x[:100] + 1e6, x[100:] + 1e6], 3)
    np.testing.assert_allclose(found.variance, wanted.explained_variance_ * 499 / 500, rtol=1e-8)
    np.testing.assert_allclose(np.abs(np.sum(found.axes.T * wanted.components_, axis=1)), 1)
    assert found.total == pytest.approx(x.var(axis=0).sum(), rel=1e-8)
    # The same axes, signs and all, whatever the order of the rows.
    again = principal.fit([x[::-1] + 1e6], 3)
    np.testing.assert_allclose(again.axes, found.axes, atol=1e-9)
    assert (found.axes[np.abs(found.axes).argmax(axis=0), range(3)] > 0).all()


def test_neighbours_vote_without_the_row_itself(make):
    made = make(latent_dim=3, x_train=X, x_test=X[:200], y_train=Y, y_test=Y[:200] % 3)
    result = latent.task(made.model, made.test)
    z, label = result.files["codes.npz"]["z"].astype(np.float64), Y[:200] % 3
    right = 0
    for row in range(200):
        others = np.delete(np.arange(200), row)
        near = others[np.argsort(np.linalg.norm(z[others] - z[row], axis=1))[:5]]
        right += np.bincount(label[near]).argmax() == label[row]
    assert result.values()["knn_accuracy"] == pytest.approx(right / 200)


def test_tsne_is_drawn_where_it_is_asked_for(make, monkeypatch):
    monkeypatch.setattr(latent, "_MOST_MAPPED", 40)
    made = make(latent_dim=3, x_train=X, x_test=X[:200], y_train=Y, y_test=Y[:200])
    result = latent.task(made.model, made.test, maps="tsne")
    assert [figure.name for figure in result.figures] == ["latent_tsne", "latent_activity"]
    assert "t-SNE of 40 codes, perplexity 13" in result.figures[0].caption
    with pytest.raises(InputError, match="--maps=pca,umap: there is no map 'umap'"):
        latent.task(made.model, made.test, maps="pca,umap")


def test_activity_of_a_variational_code_is_its_divergence(make):
    made = make(latent_dim=2, bottleneck=Variational(), x_train=X, x_test=X[:100])
    mean, log_variance = np.split(made.linear.encode(X[:100] / np.float64(255)), 2, axis=1)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1)
    found, what = latent.activity(made.model, made.test, mean)
    assert "KL to the prior" in what
    np.testing.assert_allclose(found, kl.mean(axis=0), rtol=1e-4)
    caption = latent.task(made.model, made.test).figures[-1].caption
    assert "KL to the prior" in caption
