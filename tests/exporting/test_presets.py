"""Every preset gives the numbers of its model in every format, for any number of rows."""

import dataclasses
import io
import zipfile

import jax
import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
from flax import nnx

from aejax.exporting import onnx_model, stablehlo, tensors
from aejax.exporting.functions import Classification, Functions
from aejax.runs.arrays import flatten
from launch.flags import presets
from tests.exporting.presets import model_of, source_of

QUICK = ("k_sparse", "table")
CLASSIFIERS = ("classifier", "infinite_digits")  # no decoder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in QUICK else pytest.mark.slow)
        for n in presets()
        if n not in CLASSIFIERS
    ],
)
def test_a_preset_gives_its_numbers_in_every_format(name):
    source = source_of(name)
    model = model_of(name, source)
    raw = source[:].x
    with jax.default_matmul_precision("highest"):
        wanted = [model.encode(raw), model.reconstruct(raw), model.score(raw)]
    wanted.append(np.zeros(len(raw), bool))
    functions = Functions(model, None)
    arrays = safetensors.numpy.load(tensors.build(functions)["model.safetensors"])
    state = flatten(nnx.to_pure_dict(nnx.state(model.module)))
    assert set(arrays) == set(state)
    assert all(np.array_equal(arrays[name], value) for name, value in state.items())
    files = onnx_model.build(functions)
    whole, decoder = (
        onnxruntime.InferenceSession(files[n]) for n in ("model.onnx", "decoder.onnx")
    )
    for count in (40, 1):
        found = whole.run(None, {"raw": raw[:count]})
        same(found, [each[:count] for each in wanted])
        same(decoder.run(None, {"code": found[0]}), [wanted[1][:count]])
    with zipfile.ZipFile(io.BytesIO(stablehlo.build(functions)["model.stablehlo"])) as file:
        calls = [jax.export.deserialize(file.read(n)).call for n in ("encode", "decode", "score")]
    encode, decode, score = calls
    z = encode(raw[:7])
    same([z, decode(z), *score(raw[:7])], [each[:7] for each in wanted])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("classifier", "digits"),
        ("classifier", "holes"),
        pytest.param("infinite_digits", "digits", marks=pytest.mark.slow),
    ],
)
def test_a_classifier_gives_its_probabilities_in_every_format(name, kind):
    source = source_of(name)
    if kind == "holes":
        label = np.arange(40, dtype=np.int32) % 10
        source = dataclasses.replace(source_of("table"), label=label)
    model = model_of(name, source)
    raw = source[:].x
    with jax.default_matmul_precision("highest"):
        wanted = [model.encode(raw), model.classify(raw)]
    np.testing.assert_allclose(wanted[1].sum(axis=1), 1, rtol=1e-5)
    functions = Classification(model)
    arrays = safetensors.numpy.load(tensors.build(functions)["model.safetensors"])
    assert {"head/kernel", "head/bias"} < set(arrays)
    files = onnx_model.build(functions)
    assert set(files) == {"model.onnx"}
    session = onnxruntime.InferenceSession(files["model.onnx"])
    assert [each.name for each in session.get_outputs()] == ["code", "probabilities"]
    for count in (40, 1):
        same(session.run(None, {"raw": raw[:count]}), [each[:count] for each in wanted])
    with zipfile.ZipFile(io.BytesIO(stablehlo.build(functions)["model.stablehlo"])) as file:
        assert file.namelist() == ["encode", "classify", "signature.json"]
        encode, classify = (jax.export.deserialize(file.read(n)).call for n in file.namelist()[:2])
    same([encode(raw[:7]), classify(raw[:7])], [each[:7] for each in wanted])


def same(found, wanted):
    for value, true in zip(found, wanted, strict=True):
        assert np.shape(value) == true.shape and np.asarray(value).dtype == true.dtype
        np.testing.assert_allclose(value, true, rtol=1e-5, atol=1e-5)
