"""Reconstruction errors of symbols, such as bytes of text: the share of wrong ones."""

from typing import Any

import jax
import numpy as np

from aejax.data.sources.base import Source
from aejax.evaluation.result import Number, Result
from aejax.evaluation.rows import EvaluatedRows, real_elements, stream
from aejax.models.coders import Recurrent
from aejax.models.likelihood import Categorical
from aejax.runs.loading import Model

_SHOWN = 5


def are_symbols(model: Model) -> bool:
    """Whether this model's elements are symbols: its likelihood is categorical."""
    return isinstance(model.run.config.model.likelihood, Categorical)


def result(model: Model, source: Source) -> Result:
    """Compares rows with the likeliest symbols that the decoder predicts from their codes.

    Sums are in float64. The decoder gets the code alone, without teacher forcing.
    """
    sums: dict[str, float] = {}
    first: EvaluatedRows | None = None
    for batch in stream(model, source, _compared(model)):
        first = first or batch
        right = batch.values["decoded"] == batch.rows.x.reshape(len(batch.rows.x), -1)
        real = real_elements(batch.rows)
        found = {
            "accuracy": right * real,
            "whole_rows": np.all(right | (real == 0), axis=1),
            "nll": batch.values["nll"] * real,
            "symbols": real,
        }
        for name, values in found.items():
            sums[name] = sums.get(name, 0.0) + float(values.sum(dtype=np.float64))
    assert first is not None
    means = {name: value / sums["symbols"] for name, value in sums.items()}
    means["whole_rows"] = sums["whole_rows"] / len(source)
    return Result(
        {
            "accuracy": Number(means["accuracy"], "", "share of symbols exactly right", True),
            "whole_rows": Number(means["whole_rows"], "", "share of rows without an error", True),
            "nll": Number(means["nll"], "nats per symbol", "cross-entropy, from the logits", True),
        },
        notes=_notes(model, first),
    )


def _compared(model: Model):
    """(module, raw, mask) -> {"decoded": likeliest symbols, "nll"}, each [rows, elements]."""

    def compare(module: Any, raw: jax.Array, mask: jax.Array | None) -> dict[str, jax.Array]:
        x, likelihood = model.preparation(raw), module.settings.likelihood
        parameters = module.decoder(module.encode(x, mask), None, mask)
        flat = parameters.reshape(len(x), -1, parameters.shape[-1])
        nll = -likelihood.log_prob(flat, x.reshape(len(x), -1))
        return {"decoded": likelihood.mode(flat), "nll": nll}

    return compare


def _notes(model: Model, first: EvaluatedRows) -> list[str]:
    notes = ["No squared error and no PCA: symbols have no order and no distance."]
    coder = model.run.config.model.coder
    if isinstance(coder, Recurrent) and coder.teacher_forcing:
        notes.append(
            "The decoder is fed its own likeliest symbols, so that nll is no likelihood of whole"
            " rows."
        )
    x, length = first.rows.x[:_SHOWN], first.rows.length
    if x.dtype == np.uint8 and x.ndim == 2:
        decoded = first.values["decoded"].astype(np.uint8)
        ends = [x.shape[1]] * len(x) if length is None else length[: len(x)]
        notes += [
            f"{_text(row[:end])} became {_text(decoded[number, :end])}."
            for number, (row, end) in enumerate(zip(x, ends, strict=True))
        ]
    return notes


def _text(row: np.ndarray) -> str:
    """Bytes as text: printable ones as they are, others as escapes."""
    return repr(row.tobytes())[1:]
