"""Runs of a search, side by side and one after another."""

import math
import threading
import time
from types import SimpleNamespace

import jax
import pytest

from aejax import cluster
from aejax.runs import claims, manifests
from aejax.search import Search
from aejax.search.job import SearchFolder
from aejax.training.loop import NotFinite
from aejax.training.setup import setup
from aejax.training.trainer import Trainer
from tests.search import toys
from tests.training.processes import assert_same_bits
from tests.training.runs import train


def job(workdir, devices: int, **changes) -> SearchFolder:
    own = Search(run=toys.config(), encoder_space=("af", "w"), **changes)
    search = setup(own.run)
    rest = {"stop": lambda: False, "quiet": True, "devices": jax.devices()[:devices]}
    sources = search.train, search.train, search.test
    return SearchFolder(own, str(workdir), *sources, search.preparation, rest)


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr("aejax.cluster.cores", lambda: 2)


@pytest.mark.slow
def test_runs_side_by_side_end_with_the_bits_of_runs_one_after_another(tmp_path, two_cores):
    search = job(tmp_path / "beside", 1, seeds=2)
    model = search.settings.run.model
    found = search.retrain({"aw": model})["aw"]
    for number, seed in enumerate((1000, 1001)):
        config = search.config(model, search.settings.run.duration, seed)
        alone, sources = tmp_path / f"aw-{seed}", (search.learning, search.test)
        outcome = train(config, alone, sources)
        assert_same_bits(tmp_path / "beside" / "again" / alone.name, alone, 12)
        assert {key: value[number] for key, value in found.items()} == outcome.metrics


def test_what_one_seed_has_compiled_serves_the_others(tmp_path, monkeypatch):
    compiled, counts, fit = [], [], Trainer.fit

    def listen(name, *_, **__):
        if "backend_compile" in name:
            compiled.append(name)

    def counted(*arguments, **options):
        compiled.clear()
        outcome = fit(*arguments, **options)
        counts.append(len(compiled))
        return outcome

    jax.monitoring.register_event_duration_secs_listener(listen)
    monkeypatch.setattr(Trainer, "fit", counted)
    monkeypatch.setattr("aejax.cluster.cores", lambda: 1)
    job(tmp_path, 1, seeds=3).retrain({"aw": toys.autoencoder()})
    assert counts == [3, 0, 0]  # the first state, the steps, the evaluation


def test_each_model_has_the_losses_of_its_own_seeds(tmp_path, two_cores, monkeypatch):
    def train(job, name, config, sources, same_programs):
        assert sources == (job.learning, job.test)
        assert sources == (same_programs.train, same_programs.test)
        return SimpleNamespace(metrics={"nll": name})

    monkeypatch.setattr(SearchFolder, "train", train)
    search = job(tmp_path, 1, seeds=3)
    assert search.retrain({"one": toys.autoencoder(), "two": toys.autoencoder()}) == {
        name: {"nll": [f"again/{name}-{seed}" for seed in (1000, 1001, 1002)]}
        for name in ("one", "two")
    }


def test_on_one_cpu_two_go_on_at_once_and_the_order_is_that_of_the_items(tmp_path, two_cores):
    both = threading.Barrier(2, timeout=60)

    def make(item: int) -> int:
        both.wait()
        return 10 * item

    assert job(tmp_path, 1).shared_map(make, range(4), str, "1 steps") == [0, 10, 20, 30]


def test_on_several_devices_and_on_a_gpu_one_runs_after_another(tmp_path, two_cores):
    gpu = job(tmp_path, 1)
    gpu.run_options["devices"] = [SimpleNamespace(platform="gpu")]
    own = threading.current_thread().name
    for search in (job(tmp_path, 2), gpu):
        search.workdir += "+"  # a new folder
        names = search.shared_map(lambda _: threading.current_thread().name, range(3), str, "")
        assert names == [own] * 3


def test_where_one_fails_the_others_are_saved_and_stop(tmp_path, two_cores):
    search = job(tmp_path, 1, seeds=1)
    whole = search.config(search.settings.run.model, "1000000 steps")
    begun = tmp_path / "whole" / "metrics.jsonl"

    def make(item: int) -> None:
        if item != 1:
            search.train("whole" if item == 0 else f"later-{item}", whole)
        while not begun.exists() or not begun.read_text():
            time.sleep(0.01)
        raise NotFinite("run 1")

    with pytest.raises(NotFinite, match="run 1"):
        search.shared_map(make, range(4), str, "")
    assert manifests.steps(str(tmp_path / "whole"))
    assert not [one for one in tmp_path.glob("later-*") if manifests.steps(str(one))]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Holds a lock of the search as another process does, and lets it go."""
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.01)

    def hold(name: str):
        own = claims.claim(str(tmp_path / "claims" / name))
        assert own
        return own

    return hold


def test_what_one_process_makes_the_others_wait_for_and_do_not_make(tmp_path, elsewhere):
    search, own, other = job(tmp_path, 1), elsewhere("one.json"), job(tmp_path, 1)
    assert search.is_taken("one.json") and not search.is_taken("two.json")

    def end():
        other.keep("one.json", {"made": "elsewhere"})
        own.close()

    threading.Timer(0.2, end).start()
    assert search.load_or_compute("one.json", dict) == {"made": "elsewhere"}
    assert not search.is_taken("one.json") and search.load_or_compute("one.json", dict)
    # Its maker died: it is made here.
    own = elsewhere("two.json")
    threading.Timer(0.2, own.close).start()
    assert search.load_or_compute("two.json", lambda: {"made": "here"}) == {"made": "here"}
    with elsewhere("three.json"), pytest.raises(cluster.Stopped):
        search.run_options["stop"] = lambda: True
        search.load_or_compute("three.json", dict)


def test_what_all_make_together_nobody_waits_for_and_the_first_counts(tmp_path, elsewhere):
    search = job(tmp_path, 1)

    def make():
        job(tmp_path, 1).keep("one.json", {"made": "elsewhere"})
        return {"made": "here"}

    with elsewhere("one.json"):
        assert search.load_or_compute("one.json", make, shared=True) == {"made": "elsewhere"}


def test_what_is_not_whole_is_made_anew_once(tmp_path, elsewhere):
    search, own = job(tmp_path, 1), elsewhere("times.json")
    search.keep("times.json", {"of": 2})

    def end():
        search.keep("times.json", {"of": 3})
        own.close()

    threading.Timer(0.2, end).start()

    def three(kept):
        return kept["of"] == 3

    assert search.load_or_compute("times.json", dict, is_whole=three) == {"of": 3}
    search.keep("times.json", {"of": 2})
    found = search.load_or_compute("times.json", lambda: {"of": 3, "x": 1}, is_whole=three)
    assert found == search.kept("times.json") == {"of": 3, "x": 1}


def test_what_came_out_of_a_run_is_kept_with_its_duration(tmp_path):
    search, made = job(tmp_path, 1), []

    def make(item):
        made.append(item)
        return math.inf if item == "b" else 0.1

    for duration in ("6 steps", "6 steps", "12 steps"):
        assert search.shared_map(make, "ab", str, duration) == [0.1, math.inf]
    assert sorted(made[:2]) == sorted(made[2:]) == ["a", "b"]  # of six steps it was known
    assert search.kept("b/outcome.json") == {"6 steps": math.inf, "12 steps": math.inf}
