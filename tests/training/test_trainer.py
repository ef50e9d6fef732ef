"""The way in: arrays, sources, and what it refuses."""

import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax
from aejax.models.bottlenecks import KSparse, Variational
from aejax.runs import folder, manifests
from tests.training.runs import small, train

ROWS = np.random.RandomState(0).rand(40, 6).astype(np.float32)


def config(**changes):
    settings = {"duration": "4 steps", "batch_size": 8, "log_every": 2}
    return small(**{**settings, "model": aejax.Autoencoder(latent_dim=3), **changes})


def test_nothing_happens_before_fit(tmp_path):
    aejax.Trainer(config(), tmp_path / "run", train=ROWS, test=ROWS)
    assert not (tmp_path / "run").exists()


def test_own_arrays_train_resume_and_load(tmp_path):
    trainer = aejax.Trainer(config(), tmp_path, ROWS[:32], ROWS[32:], devices=jax.devices()[:1])
    assert trainer.fit(quiet=True).status == "done"
    assert trainer.fit(quiet=True).status == "complete"
    assert folder.read(str(tmp_path)).config.data.source == "arrays"
    model = aejax.load(str(tmp_path))
    codes = model.encode(ROWS)
    assert codes.shape == (40, 3) and model.decode(codes).shape == ROWS.shape
    x, made = ROWS, model.reconstruct(ROWS)
    np.testing.assert_allclose(model.score(ROWS), np.square(made - x_scaled(x)).mean(1), rtol=1e-4)
    assert repr(model) == (
        "<aejax.Model: autoencoder, coder dense, bottleneck plain, likelihood bernoulli; rows (6,)"
        " float32 -> codes (3,); 45 parameters, step 4>"
    )


def test_rows_of_other_types_are_read_as_those_that_were_trained_on(tmp_path):
    """float64 is what NumPy gives, jax.Array what JAX does."""
    fit = {"quiet": True}
    aejax.Trainer(config(), tmp_path / "jax", jnp.asarray(ROWS), jnp.asarray(ROWS)).fit(**fit)
    aejax.Trainer(config(), tmp_path / "double", ROWS.astype(float), ROWS.astype(float)).fit(**fit)
    for name in ("jax", "double"):
        model = aejax.load(str(tmp_path / name))
        codes = model.encode(ROWS)
        for rows in (ROWS.astype(float), jnp.asarray(ROWS)):
            np.testing.assert_array_equal(model.encode(rows), codes)
        with pytest.raises(aejax.InputError, match="rows are uint8; this model was trained on flo"):
            model.score(ROWS.astype(np.uint8))
        with pytest.raises(aejax.InputError, match="rows has values that are not finite in float3"):
            model.score(ROWS.astype(float) * 1e300)


def x_scaled(x):
    low, high = x[:32].min(), x[:32].max()
    return (x - low) / (high - low)


def test_a_model_with_a_prior_draws_rows(tmp_path):
    model = aejax.Autoencoder(latent_dim=3, bottleneck=Variational())
    train(config(model=model), tmp_path, (ROWS, ROWS))
    loaded = aejax.load(str(tmp_path))
    drawn = loaded.sample(5)
    assert drawn.shape == (5, 6) and np.array_equal(drawn, loaded.sample(5))
    assert not np.array_equal(drawn, loaded.sample(5, seed=1))
    np.testing.assert_array_equal(
        drawn, loaded.decode(np.asarray(jax.random.normal(jax.random.key(0), (5, 3))))
    )
    with pytest.raises(aejax.InputError, match=r"sample\(0\): must be a whole number"):
        loaded.sample(0)


def test_a_model_without_a_prior_says_so(tmp_path):
    model = aejax.Autoencoder(latent_dim=3, bottleneck=KSparse(k=1))
    train(config(model=model), tmp_path, (ROWS, ROWS))
    with pytest.raises(aejax.InputError, match="model.bottleneck=k_sparse has no prior"):
        aejax.load(str(tmp_path)).sample(2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"train": ROWS}, "test is missing: rows are given for train"),
        ({"test": ROWS}, "train is missing: rows are given for test"),
        ({"train": [1, 2], "test": ROWS}, r"Trainer\(train=...\) is a list; accepted: an array"),
        ({"train": ROWS, "test": "digits"}, r"Trainer\(test=...\) is a str"),
        ({"train": ROWS, "test": np.zeros((3, 6), complex)}, r"Trainer\(test=...\)"),
    ],
)
def test_what_is_no_rows_is_refused(tmp_path, rows, message):
    with pytest.raises(aejax.InputError, match=message):
        aejax.Trainer(config(), tmp_path / "run", **rows)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_the_former_settings_goes_on(tmp_path):
    train(config(), tmp_path, (ROWS, ROWS))
    file = tmp_path / "config.json"
    text = file.read_text()
    assert '"trackers": [],' in text
    file.write_text(text.replace('"trackers": [],', '"tensorboard": true,'))
    assert folder.read(str(tmp_path)).config.trackers == ("tensorboard",)
    assert train(config(duration="6 steps"), tmp_path, (ROWS, ROWS)).step == 6


@pytest.mark.parametrize("inside", ["thread", "own request", "alone"])
def test_ctrl_c_saves_and_stops_a_run_from_python(tmp_path, inside):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    long = config(duration="1000000 steps", log_every=100)

    def interrupt(row):
        if row["step"] >= 300:
            signal.raise_signal(signal.SIGINT)

    if inside == "alone":
        outcome = train(long, tmp_path, (ROWS, ROWS), callbacks=[interrupt])
        assert outcome.status == "stopped" and outcome.step >= 300
        assert manifests.steps(str(tmp_path))[-1] == outcome.step
    elif inside == "own request":  # who passes one has listened already, as programs do
        with pytest.raises(KeyboardInterrupt):
            train(long, tmp_path, (ROWS, ROWS), callbacks=[interrupt], stop=lambda: False)
    else:  # Python delivers no signal there
        ended = []
        short = config(duration="10 steps")
        other = threading.Thread(
            target=lambda: ended.append(train(short, tmp_path, (ROWS, ROWS)).status)
        )
        other.start()
        other.join()
        assert ended == ["done"]
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", ".lock"])
def test_a_folder_in_a_files_place_is_refused_by_name(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(aejax.InputError, match=f"/{name}: is a folder; move it away"):
        train(small(), tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("target", ["gone/rows.jsonl", "metrics.jsonl"])
def test_a_link_that_leads_nowhere_is_refused_by_name(tmp_path, target):
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / target)
    with pytest.raises(aejax.InputError, match=f"metrics.jsonl: is a link to .*{target}, where no"):
        train(small(), tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("name", ["checkpoints", "figures"])
def test_a_file_in_a_folders_place_is_refused_before_anything_is_trained(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(aejax.InputError, match=f"/{name}: is no folder; move it away"):
        train(small(), tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == [name]
