"""Learning curves, from rows of metrics.jsonl that are typed here."""

import csv
import json

import numpy as np
import pytest

from aejax.config import Evaluation
from aejax.errors import InputError
from aejax.evaluation import plots
from aejax.models import Autoencoder
from aejax.sweeps import learning
from tests.training.runs import small

# {seed: {step: loss}}
TRAIN = {0: {2: 5.0, 4: 3.0, 6: 1.0}, 1: {2: 6.0, 4: 5.0, 6: None}, 2: {2: 10.0, 3: 8.0, 4: 4.0}}


def run(folder, name, train, test=None):
    """A run's rows: its name, and {step: loss} on both splits."""
    place = folder / "runs" / name
    place.mkdir(parents=True)
    rows = [{"step": step, "split": "train", "loss": loss} for step, loss in train.items()]
    rows += [{"step": k, "split": "test", "mse": v} for k, v in (test or {}).items()]
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def group(folder, size, train, test=None, status="done"):
    """Records of a group whose runs have these rows, a run a seed."""
    records = []
    for seed, losses in train.items():
        name = f"latent_dim={size},seed={seed}"
        run(folder, name, losses, test)
        settings = {"model.latent_dim": size, "seed": seed}
        records.append({"name": name, "status": status, "settings": settings})
    return records


def read(folder, groups, asked="", **changes):
    names = [one["name"] for records in groups.values() for one in records]
    return learning.read(
        str(folder), groups, dict.fromkeys(names, small(batch_size=10, **changes)), asked
    )


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_a_line_is_the_mean_over_seeds_at_the_steps_that_all_have(tmp_path, seeds):
    train = {seed: TRAIN[seed] for seed in range(seeds)}
    learned = read(tmp_path, {"a": group(tmp_path, 4, train)})
    line = learned.lines["train"]["a"]
    steps = [2, 4, 6] if seeds == 1 else [2, 4]
    assert line.examples.tolist() == [10 * step for step in steps] and line.seeds == seeds
    values = np.array([[train[seed][step] for step in steps] for seed in train])
    assert np.allclose(line.mean, values.mean(0))
    half = values.std(0, ddof=1) / np.sqrt(3) if seeds == 3 else 0
    low, high = (
        (line.mean - half, line.mean + half) if seeds == 3 else (values.min(0), values.max(0))
    )
    assert np.allclose(line.low, low) and np.allclose(line.high, high)


def test_runs_that_diverged_and_runs_without_rows_have_no_part(tmp_path):
    records = group(tmp_path, 4, {0: TRAIN[0]})
    records += group(tmp_path, 5, {0: TRAIN[1]}, status="diverged")
    records.append({**records[0], "name": "deleted"})
    groups = {"a": records, "b": group(tmp_path, 6, {0: TRAIN[2]}, status="diverged")}
    learned = read(tmp_path, groups)
    assert learned.lines["train"]["a"].mean.tolist() == [5, 3, 1]
    assert [*learned.lines["train"]] == ["a"] and not learned.lines["test"]


def test_the_term_is_the_metric_unless_another_is_asked_for(tmp_path):
    groups = {"a": group(tmp_path, 4, {0: TRAIN[0]}, {6: 0.5})}
    metric = Evaluation(metric="mse")
    assert read(tmp_path, groups).term == "loss"
    assert read(tmp_path, groups, evaluation=metric).term == "mse"
    learned = read(tmp_path, groups, "mse")
    assert learned.lines["test"]["a"].mean.tolist() == [0.5] and not learned.lines["train"]
    assert "rows of the train split have no mse" in learning.figures(learned)[0].caption
    assert read(tmp_path, groups, "loss", evaluation=metric).term == "loss"
    for term in ("step", "mes"):
        with pytest.raises(InputError, match=f"--curve={term}: no run reports it; must be one of"):
            read(tmp_path, groups, term)
    two = {"a.0": small(), "a.1": small(evaluation=metric)}
    assert learning.read(str(tmp_path), {}, two).term == "loss"  # they have no other in common


def test_the_best_of_many_lines_are_drawn_and_the_table_has_all(tmp_path, monkeypatch):
    last = np.random.RandomState(0).permutation(14) + 1.0
    groups = {
        f"latent_dim={i}": group(tmp_path, i, {0: {2: 50.0 - i}}, {2: last[i]}) for i in range(14)
    }
    learned, drawn = read(tmp_path, groups, "mse"), {}
    width = int.from_bytes(learning.figures(learned)[0].png[16:20])
    assert width <= 700  # letters of 10 points shrink by half at most on a telephone
    monkeypatch.setattr(plots, "bands_png", lambda panels, axes: drawn.update(panels) or b"")
    (figure,) = learning.figures(learned)
    best = [f"latent_dim={i}" for i in range(14) if last[i] <= 12]
    assert [*drawn["test"]] == best and len(best) == 12
    assert "Of 14 lines the 12 with the least last value on the test split" in figure.caption
    text = learning.csv_text(learned, ["model.latent_dim", "seed"])
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["model.latent_dim"] for row in rows] == [str(i) for i in range(14)]
    assert [float(row["mean"]) for row in rows] == last.tolist()
    assert [*rows[0]] == ["model.latent_dim", "split", "examples", "mean", "low", "high", "seeds"]


def test_the_caption_says_what_bands_are(tmp_path):
    one, two = {0: TRAIN[0]}, {0: TRAIN[0], 1: TRAIN[1]}
    for seeds, said in (
        ([one], None),
        ([two], "bands are of two seeds from the least to the greatest."),
        ([one, TRAIN], "bands are of 3 seeds ± one standard error."),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        groups = {f"{i}": group(folder, i, each) for i, each in enumerate(seeds)}
        caption = learning.figures(read(folder, groups))[0].caption
        assert said in caption if said else "bands" not in caption


def test_a_share_of_the_rows_is_drawn_in_percent_and_the_table_keeps_it(tmp_path, monkeypatch):
    groups, drawn = {"a": group(tmp_path, 4, {0: TRAIN[0]}, {2: 0.5, 6: 0.25})}, {}
    monkeypatch.setattr(plots, "bands_png", lambda *given: drawn.update(given=given) or b"")
    monkeypatch.setattr(Autoencoder, "shares", ("mse",))
    learned = read(tmp_path, groups, "mse")
    (figure,) = learning.figures(learned)
    panels, axes = drawn["given"]
    assert axes == ("examples seen", "mse in %") and figure.caption.startswith("mse in % over")
    assert [each.tolist() for each in panels["test"]["a"][1:]] == [[50, 25]] * 3
    rows = list(csv.DictReader(learning.csv_text(learned, ["seed"]).splitlines()))
    assert [row["mean"] for row in rows] == ["0.5", "0.25"]
    learning.figures(read(tmp_path, groups, "loss"))
    assert drawn["given"][1] == ("examples seen", "loss")
