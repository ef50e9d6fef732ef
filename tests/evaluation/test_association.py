"""Association tests against the definition and against published effect sizes."""

import csv
import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aejax.errors import InputError
from aejax.evaluation import association
from tests.launch import forked
from tests.training.runs import small, train

DATA = os.environ.get("AEJAX_DATA")
needs_ieat = pytest.mark.skipif(
    not DATA or not Path(DATA, "ieat").is_dir(), reason="AEJAX_DATA names no folder with ieat/"
)


def by_definition(x, y, a, b):
    """d and exact p, with loops."""

    def cosine(one, other):
        return one @ other / np.linalg.norm(one) / np.linalg.norm(other)

    def s(w):
        return np.mean([cosine(w, each) for each in a]) - np.mean([cosine(w, each) for each in b])

    values = [s(w) for w in (*x, *y)]
    d = (np.mean(values[: len(x)]) - np.mean(values[len(x) :])) / np.std(values, ddof=1)
    observed, hits, count = sum(values[: len(x)]) - sum(values[len(x) :]), 0, 0
    for chosen in itertools.combinations(range(len(values)), len(x)):
        inside = sum(values[i] for i in chosen)
        hits += inside - (sum(values) - inside) >= observed - 1e-12
        count += 1
    return d, hits / count


@pytest.mark.parametrize("sizes", [(4, 4, 3, 5), (3, 5, 2, 2), (1, 1, 1, 1)])
def test_it_is_the_definition(sizes):
    draw = np.random.RandomState(sum(sizes))
    sets = [draw.randn(size, 7) + 0.3 for size in sizes]
    found = association.association(*sets)
    d, p = by_definition(*sets)
    assert found.exact and found.p == pytest.approx(p, abs=1e-12)
    assert found.d == pytest.approx(d, rel=1e-12)
    assert (found.targets, found.attributes) == (sizes[:2], sizes[2:])


def test_drawn_partitions_are_near_all_of_them_and_never_none(monkeypatch):
    draw = np.random.RandomState(0)
    sets = [draw.randn(6, 20) + shift for shift in (0.4, 0.0, 0.2, 0.0)]
    exact = association.association(*sets)
    monkeypatch.setattr(association.math, "comb", lambda n, k: 10**9)
    drawn = [association.association(*sets, seed=seed) for seed in (0, 0, 1)]
    assert exact.exact and not drawn[0].exact
    assert drawn[0].p == drawn[1].p != drawn[2].p
    assert all(one.p == pytest.approx(exact.p, abs=0.02) for one in drawn)
    axes = np.eye(60)
    apart = association.association(axes[:30], axes[30:], axes[:30], axes[30:])
    assert apart.p == 1 / association.MOST_PARTITIONS


def test_sets_that_are_the_same_have_no_effect():
    same = np.ones((3, 4))
    found = association.association(same, same, same, same)
    assert math.isnan(found.d) and found.magnitude == "undefined" and found.p == 1.0
    with pytest.raises(ValueError, match="row 1 is all 0"):
        association.association(same, np.eye(4)[:2] * [[1], [0]], same, same)


@needs_ieat
@pytest.mark.parametrize(
    ("model", "name"),
    [("igpt", "igpt_l_32"), ("igpt-logit", "igpt-logit_l_32"), ("simclr", "simclr_152_3x_sk1")],
)
def test_every_published_effect_size_is_found_again(model, name):
    folder = Path(DATA or "", "ieat")
    tests = association.read_tests(str(folder / "tests.json"))
    embeddings = association.read_embeddings(str(folder / f"{name}.npz"))
    found = association.run_tests(tests, embeddings.__getitem__)
    with open(folder / "results-full.csv", newline="") as file:
        published = {row["Test"]: row for row in csv.DictReader(file) if row["Model"] == model}
    assert published.keys() == found.keys() and len(found) == 39
    for test, one in found.items():
        assert one.d == pytest.approx(float(published[test]["d"]), abs=1e-6), test
        tolerance = 1e-12 if one.exact else 0.02
        assert one.p == pytest.approx(float(published[test]["p"]), abs=tolerance), test


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "[]", r'must be {"NAME": \["X", "Y", "A", "B"\], ...}'),
        ("a.json", '{"one": ["x", "y", "a"]}', "one: must be"),
        ("a.json", "{", "is no JSON"),
    ],
)
def test_a_file_of_tests_that_cannot_be_is_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        association.read_tests(str(tmp_path / name))


def run(folder, *arguments):
    return forked.run("associate", *arguments, where=folder)


def test_from_a_table_of_embeddings_and_what_is_refused(tmp_path):
    draw = np.random.RandomState(0)
    lines = ["category,file,one,two,three"]
    for category in ("x", "y", "a", "b"):
        lines += [f"{category},{k}.png," + ",".join(map(str, draw.rand(3))) for k in range(4)]
    (tmp_path / "codes.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "tests.json").write_text(json.dumps({"one": ["x", "y", "a", "b"]}))
    done = run(tmp_path, "--embeddings=codes.csv", "--tests=tests.json", "--out=bias")
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "bias" / "association.json").read_text())["results"]["one"]
    sets = association.read_embeddings(str(tmp_path / "codes.csv"))
    assert saved["d"] == association.association(*(sets[name] for name in "xyab")).d
    assert "How to read this" in (tmp_path / "bias" / "report.html").read_text()
    (tmp_path / "tests.json").write_text(json.dumps({"one": ["x", "y", "a", "bb"]}))
    for arguments, said in (
        (("--embeddings=codes.csv", "--tests=tests.json"), "there is no category 'bb' among 4"),
        (("--embeddings=none.npz", "--tests=tests.json"), "--embeddings=none.npz: No such file"),
        (("--tests=tests.json",), "--embeddings and --workdir: give one of them"),
        (("--workdir=runs/x", "--tests=tests.json"), "--stimuli: is for --workdir"),
    ):
        refused = run(tmp_path, *arguments, "--out=other")
        assert refused.returncode == 2 and said in refused.stderr
        assert not (tmp_path / "other" / "association.json").exists()


def test_the_codes_of_a_runs_own_encoder(tmp_path):
    draw = np.random.RandomState(0)
    for category in ("flower", "insect", "good/pleasant", "good/unpleasant"):
        (tmp_path / "stimuli" / category).mkdir(parents=True)
        for k in range(3):
            pixels = draw.randint(0, 256, (12, 10, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "stimuli" / category / f"{k}.png")
    config = small(duration="5 steps", batch_size=4)
    config.data.source = f"images:{tmp_path / 'stimuli'}?size=8&mode=grey"
    train(config, str(tmp_path / "run"))
    sets = ["flower", "insect", "good/pleasant", "good/unpleasant"]
    (tmp_path / "tests.json").write_text(json.dumps({"one": sets}))
    given = ["--workdir=run", "--stimuli=stimuli", "--tests=tests.json", "--out=bias"]
    done = run(tmp_path, *given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test") and "(drawn)" not in done.stdout
