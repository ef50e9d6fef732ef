"""A search from its settings to its files: the same after any stops, and nothing done twice."""

import dataclasses
import itertools
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import files
from aejax.errors import InputError
from aejax.runs import loading
from aejax.search import Replacement, Search, SupernetSearch, latency, report
from aejax.search import run as searches
from aejax.search.choosing import Judge
from aejax.search.job import SearchFolder
from aejax.search.run import search
from aejax.search.space import Layout, Space
from aejax.training.setup import setup
from aejax.training.trainer import Trainer
from tests.search import toys

DEVICES = jax.devices()[:1]


def settings(**changes) -> Search:
    own = Search(
        run=toys.config(),
        encoder_space=("af", "w"),
        supernet=SupernetSearch(duration="12 steps", anneal=6, patient=False),
        replacement=Replacement(imitation="8 steps", tuning="4 steps"),
        learned=100.0,
        margin=100.0,
        judged=40,
        seeds=1,
    )
    return dataclasses.replace(own, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("whole"))
    return place, search(settings(), place, quiet=True, devices=DEVICES)


@pytest.mark.slow
def test_a_search_that_is_stopped_again_and_again_ends_with_the_same_file(whole, tmp_path):
    draw = np.random.RandomState(0)
    for attempt in itertools.count(1):
        left = iter(range(int(draw.randint(4, 40)) if attempt < 4 else 10**9))
        found = search(
            settings(),
            str(tmp_path),
            stop=lambda left=left: next(left, None) is None,
            quiet=True,
            devices=DEVICES,
        )
        if found is not None:
            break
    assert attempt == 4  # stopped three times
    names = ["layouts.json", "supernet.json", "replacement.json"]
    for name in names:
        with open(os.path.join(whole[0], name)) as one, open(tmp_path / name) as other:
            assert one.read() == other.read()


@pytest.mark.slow
def test_a_setting_that_is_newer_than_a_search_has_its_default(whole, tmp_path):
    with open(os.path.join(whole[0], "search.json")) as file:
        older = json.load(file)
    del older["equal"], older["supernet"]["target"], older["fingerprints"]
    (tmp_path / "search.json").write_text(json.dumps(older))
    (tmp_path / "layouts.json").write_text(json.dumps(whole[1]))
    assert search(settings(), str(tmp_path), quiet=True, devices=DEVICES) == whole[1]
    with pytest.raises(InputError, match=r"other settings \(config.margin: .* -> 3.0\)"):
        search(settings(margin=3.0), str(tmp_path), quiet=True, devices=DEVICES)


def test_blocks_are_timed_in_the_runs_own_type(tmp_path, monkeypatch):
    asked = []

    def table(base, space, rows, compute):
        asked.append(compute)
        raise KeyboardInterrupt

    monkeypatch.setattr(latency, "table", table)
    own = settings(price="latency")
    own.run.compute = "bfloat16"
    with pytest.raises(KeyboardInterrupt):
        search(own, str(tmp_path), quiet=True, devices=DEVICES)
    assert asked == ["bfloat16"]


@pytest.mark.slow
def test_a_search_that_is_complete_trains_nothing(whole, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", None)
    assert search(settings(), whole[0], quiet=True, devices=DEVICES) == whole[1]


@pytest.mark.slow
def test_what_is_kept(whole):
    place, found = whole
    assert found["parent"] == "aw|f"
    # A margin that forgives everything: the cheapest layout there is.
    assert found["replacement"]["layout"] == "fw|f"
    prices = [one["price"] for one in found["replacement"]["front"]]
    assert prices == sorted(prices) and prices[0] == 0
    own = found["supernet"]
    assert own["learned_at"] >= 0 and not own["collapsed"]
    for layout, measured in found["again"].items():
        assert len(measured["nll"]) == 1 and measured["parameters"] > 0, layout
    assert {"parent", "supernet", "replacement", "cosine"} == set(found["layouts"])
    page = report.write(place, settings(), found)
    with open(page, encoding="utf-8") as file:
        text = file.read()
    assert text.count("data:image/png;base64,") == 3 and "aw|f" in text
    assert "<script" not in text and "http" not in text
    assert report.text(found).count("\n") >= 4


@pytest.mark.slow
def test_the_fronts_losses_are_those_of_its_checkpoints_on_the_rows_that_choose(whole):
    place, found = whole
    own, run_setup = settings(), setup(settings().run, devices=DEVICES)
    first = len(run_setup.train) - round(own.holdout_fraction * len(run_setup.train))
    chosen = run_setup.train[np.arange(first, first + own.judged)].x
    rows = np.asarray(run_setup.preparation(jnp.asarray(chosen)))
    for one in found["replacement"]["front"]:
        layout = Layout(*one["layout"].split("|"))
        module = loading.load(os.path.join(place, "front", str(layout).replace("|", "-"))).module
        judge = Judge(module, Space(tuple(layout.encoder), tuple(layout.decoder)), rows)
        assert judge([]) == pytest.approx(one["loss"], rel=1e-5)


@pytest.mark.slow
def test_other_settings_in_the_same_folder_are_refused(whole):
    changed = settings(margin=3.0)
    with pytest.raises(InputError, match=r"other settings \(config.margin: .* -> 3.0\)"):
        search(changed, whole[0], quiet=True, devices=DEVICES)


@pytest.mark.slow
def test_other_data_in_the_same_folder_are_refused(whole, tmp_path):
    with open(os.path.join(whole[0], "search.json")) as file:
        stored = json.load(file)
    stored["fingerprints"]["train"] = "0" * 64
    (tmp_path / "search.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="holds a search on other data: .*config.run.data.source"):
        search(settings(), str(tmp_path), quiet=True, devices=DEVICES)


@pytest.mark.slow
def test_more_to_compare_is_trained_and_nothing_else(whole, tmp_path, monkeypatch):
    grown, ended = str(tmp_path / "grown"), {}
    shutil.copytree(whole[0], grown)
    fit = Trainer.fit

    def noted(trainer, *arguments, **options):
        outcome = fit(trainer, *arguments, **options)
        ended[os.path.relpath(trainer.folder, grown)] = outcome.status
        return outcome

    monkeypatch.setattr(Trainer, "fit", noted)
    more = settings(controls=("ww",), latency=True)
    found = search(more, grown, quiet=True, devices=DEVICES)
    assert found is not None and all(name.startswith("again/") for name in ended)
    for name, status in ended.items():
        assert status == ("done" if name == "again/ww-f-1000" else "complete"), name
    for layout, measured in found["again"].items():
        assert measured == whole[1]["again"].get(layout, measured), layout
    assert set(found["latency"]) == set(found["layouts"].values())
    # ww is no layout of the space; of the others, with one slot searched, a sum says nothing.
    assert not any("predicted" in one for one in found["latency"].values())

    ended.clear()
    more = settings(controls=("ww", "ff"), latency=True)
    again = search(more, grown, quiet=True, devices=DEVICES)
    assert again is not None and "ff|f" in again["latency"]
    assert [name for name, status in ended.items() if status == "done"] == ["again/ff-f-1000"]
    report.text(again)
    # Less to compare takes nothing back: what was trained stays.
    assert search(settings(), grown, quiet=True, devices=DEVICES) == whole[1]
    assert os.path.isdir(os.path.join(grown, "again", "ww-f-1000"))


@pytest.mark.slow
def test_a_kill_while_settings_change_loses_nothing(whole, tmp_path, monkeypatch):
    """Between the old results going and the new settings standing: either command goes on."""
    grown, write = str(tmp_path / "grown"), files.write
    shutil.copytree(whole[0], grown)

    def killed(path, text):
        if path.endswith("search.json"):
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(files, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        search(settings(seeds=2), grown, quiet=True, devices=DEVICES)
    monkeypatch.setattr(files, "write", write)
    assert search(settings(), grown, quiet=True, devices=DEVICES) == whole[1]
    found = search(settings(seeds=2), grown, quiet=True, devices=DEVICES)
    assert found is not None and len(found["again"]["aw|f"]["nll"]) == 2


def test_what_another_process_has_begun_to_compare_is_not_answered_with_less(tmp_path, monkeypatch):
    own = settings(controls=(), method="none", seeds=0, latency=False)
    assert search(own, str(tmp_path), quiet=True, devices=DEVICES)
    (tmp_path / "layouts.json").unlink()

    def found(job):
        stored = json.loads((tmp_path / "search.json").read_text())
        (tmp_path / "search.json").write_text(json.dumps({**stored, "seeds": 5}))
        return {"layouts": {}}

    monkeypatch.setattr(searches, "_run_search", found)
    with pytest.raises(InputError, match=r"something else here \(config.seeds\)"):
        search(own, str(tmp_path), quiet=True, devices=DEVICES)
    assert not (tmp_path / "layouts.json").exists()


def test_random_layouts_have_the_blocks_of_the_one_found_and_are_different_networks(tmp_path):
    own = settings(
        encoder_space=("afi",), controls=(), method="none", seeds=0, random=20, latency=False
    )
    own.run.model.coder.encoder_layout = "afai"
    found = search(own, str(tmp_path), quiet=True, devices=DEVICES)
    assert found is not None
    drawn = [layout for name, layout in found["layouts"].items() if name.startswith("random")]
    assert all(sorted(layout) == sorted(found["layouts"]["parent"]) for layout in drawn)
    # Of aaf there are three orders, one of them the parent's; where i stands is the same network.
    networks = {layout.replace("i", "") for layout in drawn}
    assert len(drawn) == 2 and networks == {"aaf|f", "faa|f"}


@pytest.mark.slow
def test_trials_keep_the_best_layout_of_the_blocks_that_were_found(tmp_path):
    own = settings(
        encoder_space=("afw",), controls=(), method="none", seeds=0, trials=4, latency=False
    )
    own.run.model.coder.encoder_layout = "awf"
    whole = tmp_path / "whole"

    def until(stop):
        return search(own, str(whole), stop=stop, quiet=True, devices=DEVICES)

    # Stopped in the first round, once a run of it has saved, and when the second begins.
    assert until(lambda: any(whole.glob("trials/*/checkpoints/*.json"))) is None
    assert not (whole / "trials-1.json").exists()
    assert until((whole / "trials-1.json").exists) is None
    assert not (whole / "trials-2.json").exists()
    found = until(lambda: False)
    assert found is not None
    first, second = found["trials"]["rounds"]
    # A third of them, rounded up, goes on, and of those one is left.
    assert len(first) == 4 and all(sorted(layout) == sorted("awf|f") for layout in first)
    assert set(second) == set(sorted(first, key=first.__getitem__)[:2])
    best = min(second, key=second.__getitem__)
    assert found["layouts"]["trials"] == found["trials"]["layout"] == best
    # Half of the twelve steps, then all, by the rows that layouts are chosen by.
    for layout, loss in second.items():
        name = f"{layout}-0".replace("|", "-")
        with open(whole / "trials" / name / "metrics.jsonl") as file:
            rows = [row for row in map(json.loads, file) if row["split"] == "test"]
        assert {row["step"]: row["nll"] for row in rows} == {6: first[layout], 12: loss}
    assert f"trials: {best}, the best of 4 layouts, of which 2 went on" in report.text(found)


@pytest.mark.slow
def test_nothing_is_tried_where_nothing_was_found(tmp_path):
    strict = settings(learned=0.5, method="supernet", seeds=0, controls=(), trials=2)
    found = search(strict, str(tmp_path), quiet=True, devices=DEVICES)
    assert found is not None and "trials" not in found and not (tmp_path / "trials").exists()


@pytest.mark.slow
def test_a_parent_that_has_learned_nothing_is_not_searched(tmp_path):
    lazy = settings(learned=0.5, method="replacement")
    with pytest.raises(InputError, match=r"config.learned=0.5: the parent aw\|f has a loss"):
        search(lazy, str(tmp_path), quiet=True, devices=DEVICES)


@pytest.mark.slow
def test_a_supernet_that_has_not_learned_is_no_result(tmp_path):
    strict = settings(learned=0.5, method="supernet", seeds=0, controls=())
    found = search(strict, str(tmp_path), quiet=True, devices=DEVICES)
    assert found is not None and found["supernet"]["collapsed"]
    assert "supernet" not in found["layouts"] and "collapsed" in report.text(found)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"encoder_space": ("af", "f", "a")},
            r"encoder_space=af,f,a: must have one entry, or one for",
        ),
        ({"encoder_space": ("fi",)}, r"encoder_space=fi: must hold the parent's own block, a"),
        ({"encoder_space": ("aa",)}, r"encoder_space=aa: must be different letters"),
        ({"encoder_space": ()}, r"there is no slot to search"),
        ({"controls": ("afa",)}, r"controls=afa: the encoder has 2 slots, not 3"),
        ({"controls": ("par:1",)}, r"controls=par:1: must be letters"),
        ({"method": "magic"}, r"method=magic: must be both or supernet"),
        ({"holdout_fraction": 1.0}, r"holdout_fraction=1.0: must be above 0 and below 1"),
        ({"equal": ("time",)}, r"equal=time: must be parameters or latency"),
        ({"equal": ("latency",), "seeds": 0}, r"seeds=0: must be at least 1 with config.equal"),
        ({"judged": 0}, r"judged=0: must be at least 1"),
        ({"trials": -1}, r"trials=-1: must be at least 0"),
        ({"trials": 1}, r"trials=1: must be 0 or at least 2"),
    ],
)
def test_settings_that_cannot_be_searched(changes, said, tmp_path):
    with pytest.raises(InputError, match=rf"^config\.{said}|{said}"):
        search(settings(**changes), str(tmp_path / "none"), quiet=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_parameters_are_a_price(tmp_path):
    """The dearest block costs 1, nothing costs nothing, others their share of parameters."""
    own = settings(method="replacement", price="parameters", seeds=0)
    found = search(own, str(tmp_path), quiet=True, devices=DEVICES)
    assert found is not None
    # Of width 8: attention 4 x 8 x 8 and a norm; feed-forward 2 x 8 x 8 and a norm; with biases.
    attention, feed_forward = 4 * 64 + 32 + 16, 2 * 64 + 16 + 16
    front = {one["layout"]: one["price"] for one in found["replacement"]["front"]}
    blocks = {"a": 1.0, "f": feed_forward / attention, "w": 1.0}
    for layout, price in front.items():
        # The first slot alone is searched.
        assert price == pytest.approx(blocks[layout[0]]), layout


@pytest.mark.slow
def test_the_front_learns_from_the_parent(tmp_path, monkeypatch):
    """Every layout but the parent, which goes on as it learned; the folders stay readable."""
    own = settings(method="replacement", seeds=0, margin=0.0)
    own.replacement = Replacement("8 steps", "4 steps", distil=1.0)
    taught, train = {}, SearchFolder.train

    def noted(job, name, *arguments, **options):
        taught[name] = options.get("objective")
        return train(job, name, *arguments, **options)

    monkeypatch.setattr(SearchFolder, "train", noted)
    found = search(own, str(tmp_path), quiet=True, devices=DEVICES)
    assert found is not None
    front = {name for name in taught if name.startswith("front/")}
    assert front == {
        f"front/{one['layout']}".replace("|", "-") for one in found["replacement"]["front"]
    }
    assert len(front) > 1
    for name, objective in taught.items():
        learns = name in front - {"front/aw-f"}
        assert (objective is not None) == learns, name
    assert loading.load(str(tmp_path / "front" / "fw-f")).step == 4


def test_slots_are_dealt_out_anew_for_each_seed():
    own = settings(encoder_space=("ai", "f", "wf", "a"), shuffle=True)
    own.run.model.coder.encoder_layout = "afwa"
    seen = set()
    for seed in range(10):
        own.run.seed = seed
        space, parent = own.space(), own.parent()
        seen.add(space.encoder)
        assert sorted(space.encoder) == sorted(("ai", "f", "wf", "a"))
        for letters, letter in zip(space.encoder, parent.encoder, strict=True):
            assert letters[0] == letter
    assert len(seen) > 4
    assert json.dumps(own.space().searched)
