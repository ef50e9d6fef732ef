"""Scores of exported functions are the detector's, in JAX and in ONNX, and so are flags."""

import jax
import numpy as np
import onnxruntime
import pytest
from jax import export

from aejax.data.sources import open_source
from aejax.errors import InputError
from aejax.evaluation import detector
from aejax.exporting import onnx_model
from aejax.exporting.functions import SCORES, Functions, check_detector
from tests.exporting.presets import model_of


@pytest.fixture(scope="module")
def scored():
    """A model, 60 rows, and what their scores are compared with; some rows are among it."""
    source = open_source("digits", "test[:60]")
    model = model_of("dense", source)
    training_codes = detector.fit(model, open_source("digits", "test[40:200]"))
    return model, source, training_codes


@pytest.mark.parametrize("score", SCORES)
def test_scores_and_flags_are_those_of_the_detector(scored, score):
    model, source, training_codes = scored
    wanted = detector.score(model, source, training_codes, (score,))[score]
    limit = float(np.sort(wanted)[45])  # one row has this very score
    functions = Functions(model, detector.Detector(score, limit, {}, training_codes))
    (rows,) = export.symbolic_shape("rows")
    taken = ("raw", functions.rows(rows))
    session = onnxruntime.InferenceSession(
        onnx_model.model(functions.score, rows, taken, ("score", "flagged"))
    )
    raw = source[:].x
    for found, flagged in (jax.jit(functions.score)(raw), session.run(None, {"raw": raw})):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(flagged, ~(wanted <= limit))
        assert np.sum(flagged) == 14


def test_a_row_without_a_score_is_flagged_and_nothing_is_without_a_threshold(scored):
    model, source, training_codes = scored
    raw = source[:3].x
    bad = np.full(raw.shape, np.nan, np.float32)
    kept = detector.Detector("error", 1e9, {}, training_codes)
    assert np.asarray(Functions(model, kept).score(bad)[1]).all()
    assert not np.asarray(Functions(model, kept).score(raw)[1]).any()
    for nothing in (None, detector.Detector("error", None, {}, training_codes)):
        score, flagged = Functions(model, nothing).score(raw)
        np.testing.assert_allclose(score, model.score(raw), rtol=1e-5)
        assert not np.asarray(flagged).any()


def test_a_score_that_is_drawn_is_refused(scored):
    kept = detector.Detector("elbo", 1.0, {}, scored[2])
    with pytest.raises(InputError, match="--workdir=runs/a: .*--score=elbo.*error or mahalanobis"):
        check_detector("runs/a", kept)
