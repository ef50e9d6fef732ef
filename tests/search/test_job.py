"""Runs of a search, side by side and one after another."""

import threading
import time
from types import SimpleNamespace

import jax
import pytest

from aejax.runs import manifests
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
    gpu.rest["devices"] = [SimpleNamespace(platform="gpu")]
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
