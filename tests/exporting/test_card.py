"""What a card says of scores and functions, applied by NumPy, is what the exported files give."""

import re

import numpy as np
import onnxruntime
import pytest

from aejax.data.sources import open_source
from aejax.data.sources.base import Source
from aejax.exporting import card, onnx_model, stablehlo
from aejax.exporting.functions import Classification, Functions
from tests.exporting.presets import model_of

ERROR = "the mean over a row's elements of"
DIGITS = "x is the raw row (0 to 16 becomes 0 to 1)"


@pytest.fixture(autouse=True)
def _without_a_checkpoint(monkeypatch):
    monkeypatch.setattr(card.manifests, "identity", lambda workdir, step: "")


def table(folder) -> Source:
    """30 rows of two numbers of very different sizes, one of them with holes, and a category."""
    random = np.random.RandomState(0)
    lines = [
        f"{10 + random.randn()},{'' if i % 7 == 3 else 1e4 * random.randn()},{'ab'[i % 2]}"
        for i in range(30)
    ]
    (folder / "rows.csv").write_text("\n".join(["first,second,third", *lines]) + "\n")
    return open_source(f"table:{folder}/rows.csv?missing=nan", "all")


def by_numpy(text: str, raw: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """The error of each row as a card defines it."""
    score = re.search(r"^\| score \| (.*) \|$", text, re.M)[1]
    x = raw.astype(np.float64)
    if scaled := re.search(r"\(0 to ([\d.]+) becomes 0 to 1\)", score):
        x = x / float(scaled[1])
    away = x - reconstruction
    if "((x - r) / d)^2" in score:
        deviations = re.search(r"^\| training deviations.* \| (.*) \|$", text, re.M)[1]
        away = away / [float(each) for each in deviations.split(", ")]
    square = np.square(away).reshape(len(x), -1)
    return np.nanmean(square, axis=1) if "not missing" in score else square.mean(axis=1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("table", "((x - r) / d)^2, where x is the raw row, r the reconstruction and d"),
        ("dense", f"{ERROR} (x - r)^2, where {DIGITS} and r the reconstruction"),
        ("linear", f"{ERROR} (x - r)^2, where {DIGITS} and r the reconstruction"),  # centred
    ],
)
def test_the_score_is_the_error_that_the_card_defines(name, words, tmp_path):
    source = table(tmp_path) if name == "table" else open_source("digits", "test[:30]")
    functions = Functions(model_of(name, source), None)
    text = card.card(str(tmp_path), functions, [])
    assert words in text
    session = onnxruntime.InferenceSession(onnx_model.build(functions)["model.onnx"])
    raw = source[:].x
    _, reconstruction, score, _ = session.run(None, {"raw": raw})
    np.testing.assert_allclose(by_numpy(text, raw, reconstruction), score, rtol=2e-4)


def test_the_card_names_what_each_function_takes_and_gives(tmp_path):
    source = open_source("digits", "test[:30]")
    autoencoder = Functions(model_of("dense", source), None)
    rows, code = "`rows`: uint8 [rows, 8, 8, 1]", "`code`: float32 [rows, 32]"
    decoded = "`reconstruction`: float32 [rows, 8, 8, 1]"
    scored = "`score`: float32 [rows], `flagged`: bool [rows]"
    text = stablehlo.loading(autoencoder)
    for line in (
        f"| `encode` | {rows} | {code} |",
        f"| `decode` | {code} | {decoded} |",
        f"| `reconstruct` | {rows} | {decoded} |",
        f"| `score` | {rows} | {scored} |",
    ):
        assert line in text
    text, raw = onnx_model.loading(autoencoder), rows.replace("rows", "raw", 1)
    assert f"| `model.onnx` | {raw} | {code}, {decoded}, {scored} |" in text
    assert f"| `decoder.onnx` | {code} | {decoded} |" in text
    classifier = Classification(model_of("classifier", source))
    text = stablehlo.loading(classifier)
    assert f"| `classify` | {rows} | `probabilities`: float32 [rows, 10] |" in text
    assert "decoder" not in onnx_model.loading(classifier)
    assert "| score |" not in card.card(str(tmp_path), classifier, [text])
