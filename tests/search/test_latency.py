"""The latency table: sums of what it holds, and that what is timed is the layout."""

import jax
import numpy as np
import pytest

from aejax.search import latency
from aejax.search.latency import Latency, Table
from aejax.search.space import Layout, Space
from aejax.train import step
from tests.search import toys


def test_a_prediction_is_the_empty_model_and_each_slots_block():
    blocks = {"a": Latency(3.0, 9.0), "f": Latency(1.0, 2.0), "w": Latency(2.0, 5.0)}
    table = Table(Latency(10.0, 20.0), {**blocks, "i": Latency(0.0, 0.0)})
    # Slot 1 of the encoder and slot 0 of the decoder are not searched: they are in the empty model.
    found = table.predicted(Layout("afwi", "if"), toys.SPACE)
    assert found == Latency(10.0 + 3 + 2 + 0 + 1, 20.0 + 9 + 5 + 0 + 2)
    # Of what is no layout of the space there is none, whether the slot is searched or not.
    for other in (Layout("wfwi", "if"), Layout("aawi", "if"), Layout("afwi", "ff")):
        assert table.predicted(other, toys.SPACE) is None


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_every_letter_and_layout_is_timed(compute, monkeypatch):
    types = set()

    def cast(leaf, dtype):
        types.add((made := step.cast(leaf, dtype)).dtype)
        return made

    monkeypatch.setattr(latency, "cast", cast)
    rows = toys.rows(8)
    table = latency.table(toys.autoencoder(), toys.SPACE, rows, compute, rounds=1)
    assert types == {np.dtype(compute)}
    assert set(table.blocks) == {"a", "w", "f", "i"}
    seen = latency.measure(toys.autoencoder(), [toys.PARENT], rows, compute, rounds=1)
    assert set(seen) == {toys.PARENT}
    one = seen[toys.PARENT]
    assert np.isfinite([one.forward, one.training]).all() and min(one.forward, one.training) > 0


def test_forward_is_the_loss_and_training_its_gradient_too(monkeypatch):
    programs = latency._programs(toys.autoencoder(), toys.rows(8), "float32")
    forward, (training, gradients) = (run() for run in programs)
    assert forward.shape == training.shape == () and len(jax.tree.leaves(gradients)) > 10
    seconds = dict(zip(programs, (1.0, 3.0), strict=True))
    monkeypatch.setattr(latency, "_programs", lambda *arguments: programs)
    monkeypatch.setattr(latency, "_seconds", lambda run, count: seconds[run])
    assert latency.of_models([toys.autoencoder()], toys.rows(8), "float32") == [Latency(1.0, 3.0)]


def test_layouts_are_timed_in_the_rounds_that_make_the_table():
    """The empty model is timed once, for the table and as a layout."""
    space = Space(("afi", "f", "fi", "ai"), ("i", "f"))
    layouts = [Layout("afii", "if"), toys.PARENT, space.filled("i")]
    table, seen = latency.compared(toys.autoencoder(), space, layouts, toys.rows(4), rounds=2)
    assert list(seen) == layouts
    for kind in ("forward", "training"):
        empty = getattr(seen[layouts[2]], kind)
        assert getattr(table.empty, kind) == empty
        predicted = table.predicted(layouts[0], space)
        assert predicted is not None
        added = getattr(table.blocks["a"], kind)
        assert getattr(predicted, kind) == pytest.approx(empty + added, rel=1e-9)
