"""An exported folder: its numbers without aejax are the checkpoint's, and what is refused."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

import aejax
from aejax.data.sources import open_source
from aejax.errors import InputError
from aejax.evaluation import detector
from aejax.exporting import run as exporting
from aejax.runs import folder
from aejax.runs.loading import load
from configs import classifier
from configs.dense import get_config
from tests.exporting.presets import model_of
from tests.training.runs import train

# It may import JAX and NumPy; whatever else is imported is JAX's own.
WITH_JAX = """
import sys, zipfile, jax.export, numpy as np
place, rows, out = sys.argv[1:]
raw = np.load(rows)
with zipfile.ZipFile(place + "/model.stablehlo") as file:
    names = "encode", "decode", "reconstruct", "score"
    encode, decode, reconstruct, score = (jax.export.deserialize(file.read(n)).call for n in names)
z = encode(raw)
scores, flagged = score(raw)
np.savez(out, z=z, decoded=decode(z), x=reconstruct(raw), score=scores, flagged=flagged)
assert not any(name.partition(".")[0] in ("aejax", "flax", "launch") for name in sys.modules)
"""
CARD = """
import sys, numpy as np
rows = np.load("{rows}/rows.npy")
{lines}
np.savez("{rows}/{to}.npz", {arrays})
assert not any(name.partition(".")[0] in ("aejax", "flax", "launch") for name in sys.modules)
"""
WITH_SAFETENSORS = """
import json, sys, numpy as np, safetensors
place, rows, out = sys.argv[1:]
with safetensors.safe_open(place + "/model.safetensors", "numpy") as file:
    parameters = {name: file.get_tensor(name) for name in file.keys()}
    about = {name: json.loads(text) for name, text in file.metadata().items()}
from flax import nnx
from aejax import kinds
from aejax.config import Config
from aejax.data.prepare import Preparation
from aejax.data.sources.base import Spec
from aejax.runs.arrays import flatten, unflatten
from aejax.runs.loading import abstract_batch
config, spec = kinds.from_dict(Config, about["config"]), Spec(**about["rows"])
batch = abstract_batch(config, spec)
graph, state = nnx.split(nnx.eval_shape(lambda: config.model.init(nnx.Rngs(0), batch)))
pure = nnx.to_pure_dict(state)
assert set(flatten(pure)) == set(parameters) and about["threshold"]["score"] == "error"
assert all(each.dtype == flatten(pure)[name].dtype for name, each in parameters.items())
nnx.replace_by_pure_dict(state, unflatten(pure, parameters))
prepare = Preparation(config.data.prepare, spec, about["statistics"])
np.savez(out, z=nnx.merge(graph, state).encode(prepare(np.load(rows))))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """A run of 20 steps on threes, with EMA, which keeps a threshold. Do not change."""
    path = tmp_path_factory.mktemp("exported") / "run"
    config = get_config()
    config.duration, config.trackers, config.evaluation.every = "20 steps", (), ""
    config.data.keep_labels, config.batch_size, config.optimizer.ema = (3,), 64, 0.9
    train(config, str(path))
    model, source = load(str(path)), open_source("digits", "test")
    training_codes = detector.fit(model, open_source("digits", "train[:200]"))
    scores = detector.score(model, source, training_codes, ("error",))["error"]
    record = {"score": "error", "threshold": detector.threshold(scores, 0.25)}
    text, arrays = detector.serialise(
        model,
        training_codes,
        {**record, "false_alarms": 0.25, "calibration_rows": 360, "normal": [3]},
    )
    (path / "anomaly.json").write_text(text)
    np.savez(path / "anomaly.npz", **arrays)
    return path


@pytest.fixture(scope="module")
def exported(run) -> pathlib.Path:
    place = aejax.export(str(run), ("stablehlo", "onnx", "safetensors", "onnx"))
    assert place == str(run / "export")
    return run / "export"


def test_numbers_without_aejax_are_the_checkpoints(run, exported, tmp_path):
    source = open_source("digits", "test")
    model, raw = load(str(run)), source[:].x
    np.save(tmp_path / "rows.npy", raw)
    programs = {"jax": WITH_JAX, "safetensors": WITH_SAFETENSORS}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", text, exported, tmp_path / "rows.npy", tmp_path / f"{name}.npz"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, text in programs.items()
    ]
    wanted = detector.flagged(str(run), model, source)  # what launch.encode --flag writes
    assert 0 < wanted["flagged"].sum() < 360
    z, x = model.encode(raw), model.reconstruct(raw)
    whole = onnxruntime.InferenceSession(exported / "model.onnx")
    found = dict(zip(("z", "x", "score", "flagged"), whole.run(None, {"raw": raw}), strict=True))
    decoder = onnxruntime.InferenceSession(exported / "decoder.onnx")
    (found["decoded"],) = decoder.run(None, {"code": z})
    for process in started:
        assert process.wait(timeout=240) == 0, process.stderr.read()
    with np.load(tmp_path / "jax.npz") as by_jax, np.load(tmp_path / "safetensors.npz") as built:
        np.testing.assert_allclose(built["z"], z, rtol=1e-5, atol=1e-5)
        for other in (found, by_jax):
            np.testing.assert_allclose(other["z"], z, rtol=1e-5, atol=1e-5)
            for name in ("x", "decoded"):
                np.testing.assert_allclose(other[name], x, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(other["score"], wanted["score"], rtol=1e-5)
            np.testing.assert_array_equal(other["flagged"], wanted["flagged"])


def test_the_card_says_what_the_model_is(run, exported):
    text = (exported / "card.md").read_text()
    limit = json.loads((run / "anomaly.json").read_text())["threshold"]
    for words in (
        "| labels of these rows | 3 |",
        "`digits`, split `train`",
        "uint8 [rows, 8, 8, 1], 0 to 16",
        "float32 [rows, 32]",
        f"a score above {limit:.8g}, which further normal rows of labels 3 exceed",
        "exceed at a rate of 0.25 at most (split conformal, 360 rows)",
        "Nothing: this checkpoint was not evaluated.",
        'onnxruntime.InferenceSession("model.onnx")',
        "safetensors.safe_open",
        "jax.export.deserialize",
    ):
        assert words in text, words


def test_a_classifiers_folder_is_read_as_its_card_says(tmp_path):
    run = str(tmp_path / "run")
    config = classifier.get_config()
    config.duration, config.trackers, config.optimizer.ema = "20 steps", (), 0.9
    train(config, run)
    aejax.evaluate(run, say=lambda line: None)
    place = pathlib.Path(aejax.export(run, ("stablehlo", "onnx", "safetensors")))
    names = {"card.md", "model.onnx", "model.safetensors", "model.stablehlo"}
    assert {each.name for each in place.iterdir()} == names
    text, raw = (place / "card.md").read_text(), open_source("digits", "test")[:].x
    np.save(tmp_path / "rows.npy", raw)
    by_jax, by_onnx, by_safetensors = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    programs = {
        "jax": (by_jax, "code=encode(rows), probabilities=classify(rows)"),
        "onnx": (by_onnx, "code=code, probabilities=probabilities"),
        "safetensors": (by_safetensors, "head=parameters['head/kernel']"),
    }
    started = [  # a reader's process: the lines of the card, in the folder, without aejax
        subprocess.Popen(
            [sys.executable, "-c", CARD.format(lines=lines, arrays=arrays, rows=tmp_path, to=name)],
            cwd=place,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, (lines, arrays) in programs.items()
    ]
    model = aejax.load(run)
    z, p = model.encode(raw), model.classify(raw)
    for process in started:
        assert process.wait(timeout=240) == 0, process.stderr.read()
    for name in ("jax", "onnx"):
        with np.load(tmp_path / f"{name}.npz") as found:
            np.testing.assert_allclose(found["code"], z, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(found["probabilities"], p, rtol=1e-5, atol=1e-5)
    with np.load(tmp_path / "safetensors.npz") as found:
        assert found["head"].shape == (128, 10)
    for words in (
        "float32 [rows, 10], p(label given the row); each row sums to 1",
        "| classes, in this order | 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 |",
        "they are not calibrated",
        "classify (`digits`, test, 360 rows)",
    ):
        assert words in text, words
    assert "reconstruction" not in text and "flagged" not in text


def test_what_is_there_is_replaced_whole_or_not_at_all(run, tmp_path):
    out = tmp_path / "out"
    export = dict(out=str(out), to=("safetensors",))
    aejax.export(str(run), **export)
    assert {each.name for each in out.iterdir()} == {"card.md", "model.safetensors"}
    with pytest.raises(InputError, match=f"--out={out}: exists; give --overwrite"):
        aejax.export(str(run), **export)
    (out / "model.onnx").write_bytes(b"old")
    aejax.export(str(run), overwrite=True, **export)
    assert {each.name for each in out.iterdir()} == {"card.md", "model.safetensors"}
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=f"--out={out}: holds notes.txt, which no export wrote"):
        aejax.export(str(run), overwrite=True, **export)
    assert list(tmp_path.iterdir()) == [out]


def test_bad_input_is_refused_before_a_checkpoint_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "load", None)
    run, spec = tmp_path / "run", open_source("digits", "train").spec
    folder.write(str(run), folder.Run(get_config(), spec, {}, 1437))
    (tmp_path / "file").write_text("")
    for options, text in (
        ({"to": ("onxn",)}, "--to=onxn: .*did you mean onnx"),
        ({"to": ()}, "--to is empty; accepted: stablehlo, onnx, safetensors"),
        ({"workdir": str(tmp_path)}, "holds no run"),
        ({"out": str(tmp_path / "file")}, "--out=.*file: is a file; must be a folder"),
        ({"out": str(tmp_path / "file" / "a")}, "--out=.*may not be written to"),
    ):
        with pytest.raises(InputError, match=text):
            aejax.export(**{"workdir": str(run), "out": str(tmp_path / "out"), **options})
    padded = dataclasses.replace(spec, padded=True)
    folder.write(str(run), folder.Run(get_config(), padded, {}, 1437))
    with pytest.raises(InputError, match="a length each; export takes rows of one length"):
        aejax.export(str(run), out=str(tmp_path / "out"))
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--to=onnx: needs the package onnx: pip install 'aejax"):
        aejax.export(str(run), ("onnx",), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_parameters_that_a_format_cannot_hold_are_refused(monkeypatch):
    model = model_of("dense", open_source("digits", "test[:9]"))
    monkeypatch.setattr(exporting, "_MOST_BYTES", 4192 * 4)
    with pytest.raises(InputError, match="--to=onnx: .*must be below 0 MiB, or --to=safetensors"):
        exporting.check_size(model, ("onnx", "safetensors"))
    exporting.check_size(model, ("safetensors",))
    monkeypatch.setattr(exporting, "_MOST_BYTES", 4192 * 4 + 1)
    exporting.check_size(model, ("onnx",))


def test_a_threshold_of_other_parameters_is_refused(run, tmp_path):
    kept = (run / "anomaly.json").read_text()
    try:
        (run / "anomaly.json").write_text(json.dumps({**json.loads(kept), "model": "other"}))
        with pytest.raises(InputError, match="--workdir=.*: the threshold in .* is of step 20"):
            aejax.export(str(run), out=str(tmp_path / "out"))
    finally:
        (run / "anomaly.json").write_text(kept)
