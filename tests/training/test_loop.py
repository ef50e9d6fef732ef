"""The loop: what is due when, one program, nothing implicit, and how runs end."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from aejax.callbacks import StopWhen
from aejax.config import Checkpoint, Data, Evaluation, Mesh
from aejax.data.sources.base import Arrays
from aejax.errors import InputError
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.optimizer import Adam, Sgd
from aejax.runs import arrays, checkpoint, folder, manifests
from aejax.runs.rows_file import read_history
from aejax.training import loop
from aejax.training.dispatch import ROWS
from aejax.training.loop import NotFinite
from aejax.training.setup import Setup, setup
from aejax.training.start import start
from aejax.training.validation import Validation
from tests.training.processes import ROOT, assert_same_bits, rows
from tests.training.runs import FailsAt, Watched, small, train


def test_rows_at_their_steps_and_the_mean_of_every_window(tmp_path):
    config = small(
        model=Watched(latent_dim=8, bottleneck=Plain("relu")),
        duration="155 steps",
        evaluation=Evaluation(every=""),
        checkpoint=Checkpoint(every=""),
    )
    train(config, str(tmp_path))
    config.log_every = 1  # more rows than a dispatch returns
    train(config, str(tmp_path / "each"))
    told = []
    train(config, str(tmp_path / "told"), callbacks=[told.append])
    written = [row for row in rows(tmp_path) if row["split"] == "train"]
    single = [row for row in rows(tmp_path / "each") if row["split"] == "train"]
    ends = [*range(10, 160, 10), 155]
    assert [row["step"] for row in written] == ends
    assert [row["step"] for row in single] == list(range(1, 156)) and 2 * ROWS < 155
    for row, last in zip(written, ends, strict=True):
        for name in ("loss", "nll", "index"):
            mean = np.mean([one[name] for one in single[(last - 1) // 10 * 10 : last]])
            assert row[name] == pytest.approx(mean, rel=1e-6)
    assert rows(tmp_path / "told") == rows(tmp_path / "each")  # there a dispatch ends at each row
    assert [row["step"] for row in told] == [*range(1, 156), 155]
    history = read_history(str(tmp_path / "each"))
    assert np.all(np.diff(history["seconds"]) >= 0)
    assert np.all(history["examples_per_second"][:-1] > 0)


def test_a_callback_stops_the_run_before_the_next_rows_steps_but_one(tmp_path):
    config = small(log_every=2, evaluation=Evaluation(every=""), checkpoint=Checkpoint(every=""))
    outcome = train(config, tmp_path, callbacks=[StopWhen(lambda row: row["step"] == 20)])
    assert (outcome.status, outcome.step) == ("stopped", 22)


def test_the_rows_before_a_loss_that_is_not_finite_stand(tmp_path):
    config = small(model=Autoencoder(latent_dim=8, penalty=FailsAt(step=37)), log_every=1)
    with pytest.raises(NotFinite, match=r"the loss in steps 38 to 38: not finite"):
        train(config, tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, 38))


@pytest.mark.parametrize("devices", [2, 1])
def test_a_run_of_eight_devices_goes_on_with_fewer_and_the_same_batches(tmp_path, devices):
    config = small(model=Watched(latent_dim=8, bottleneck=Plain("relu")))
    train(config, str(tmp_path / "straight"), devices=jax.devices())
    config.duration = "70 steps"
    workdir = str(tmp_path / "changed")
    train(config, workdir, devices=jax.devices())
    config.duration = "150 steps"
    config.mesh = Mesh(data=devices)
    train(config, workdir, devices=jax.devices()[:devices])
    straight, changed = rows(tmp_path / "straight"), rows(tmp_path / "changed")
    # Evaluations fall on other steps only where the first part ended.
    changed = [row for row in changed if row["step"] != 70 or row["split"] != "test"]
    assert len(straight) == len(changed)
    for one, other in zip(straight, changed, strict=True):
        assert one["step"] == other["step"]
        if one["split"] == "train":
            assert one["index"] == other["index"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_restored_arrays_are_bitwise_equal_on_any_number_of_devices(tmp_path):
    train(small(duration="20 steps"), str(tmp_path))
    read = []
    for count in (8, 2, 1):
        run_setup = setup(small(duration="20 steps"), devices=jax.devices()[:count])
        state = checkpoint.load(str(tmp_path), 20, {"params": run_setup.state.params})["params"]
        for leaf in jax.tree.leaves(state):
            assert len(leaf.sharding.device_set) == count
        read.append([np.asarray(leaf) for leaf in jax.tree.leaves(state)])
    for other in read[1:]:
        for one, two in zip(read[0], other, strict=True):
            assert one.tobytes() == two.tobytes()


def test_nothing_is_transferred_implicitly_and_every_step_count_runs_one_program(
    tmp_path, monkeypatch
):
    compiled, threads = [], set()

    def listen(name, *_, **__):
        # Other threads compile beside the first steps what evaluations need.
        if "backend_compile" in name and threading.current_thread() in threads:
            compiled.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)

    def guard(name):
        run = getattr(loop.Loop, name)

        def guarded(self, *arguments):
            if name == "steps":
                compiled.clear()
            threads.add(threading.current_thread())
            with jax.transfer_guard("disallow"):
                return run(self, *arguments)

        monkeypatch.setattr(loop.Loop, name, guarded)

    guard("steps")
    guard("launch")
    counts = []
    for number in (40, 150):
        config = small(duration=f"{number} steps", evaluation=Evaluation(every="20 steps"))
        train(config, str(tmp_path / str(number)), devices=jax.devices())
        counts.append(len(compiled))
    # All was compiled before, once: dispatches of any number of steps, evaluations and saves.
    assert counts == [0, 0]


def test_a_dispatch_is_looked_at_while_one_that_blocks_is_launched(tmp_path, monkeypatch):
    seen, looked, launch, process_report = (
        [],
        threading.Event(),
        loop.Loop.launch,
        loop.Loop.process_report,
    )

    def blocks(self, *arguments):
        # The second goes on once the first was looked at.
        seen.append(len(seen) != 1 or looked.wait(60))
        return launch(self, *arguments)

    def looks(self, *arguments):
        process_report(self, *arguments)
        looked.set()

    monkeypatch.setattr(loop.Loop, "launch", blocks)
    monkeypatch.setattr(loop.Loop, "process_report", looks)
    train(small(duration="20 steps"), str(tmp_path))
    assert len(seen) >= 2 and all(seen)


def test_the_state_is_donated():
    run_setup = setup(small())
    feed = run_setup.open_feed()
    compiled = run_setup.lower(feed, run_setup.constants(feed)).compile()
    shard = [leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves(run_setup.state)]
    size = sum(4 * int(np.prod(shape)) for shape in shard)
    # The learning rate alone is written anew in each step, so that its old place is not needed.
    assert compiled.memory_analysis().alias_size_in_bytes >= size - 4


def test_a_loss_that_is_not_finite_names_the_steps_and_the_last_good_checkpoint(tmp_path):
    model = Autoencoder(latent_dim=8, penalty=FailsAt(step=77))
    with pytest.raises(NotFinite, match=r"the loss in steps (\d+) to (\d+): not finite") as error:
        train(small(model=model), str(tmp_path))
    window = re.search(r"steps (\d+) to (\d+)", str(error.value))
    assert window and int(window[1]) <= 78 <= int(window[2])
    assert "the last good checkpoint is step 50" in str(error.value)
    assert manifests.steps(str(tmp_path)) == [50]


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    # The loss of step 100 is fine, its gradient is not: only the saved parameters would show it.
    model = Autoencoder(latent_dim=8, penalty=FailsAt(step=99, gradient_only=True))
    config = small(model=model, evaluation=Evaluation(every=""))
    with pytest.raises(NotFinite, match="the parameters at step 100"):
        train(config, str(tmp_path))
    assert manifests.steps(str(tmp_path)) == [50]


def test_an_evaluation_without_an_interval_is_made_at_the_last_step_alone(tmp_path):
    train(small(duration="20 steps", evaluation=Evaluation(every="")), str(tmp_path))
    assert [row["step"] for row in rows(tmp_path) if row["split"] == "test"] == [20]


def test_best_and_newest_are_kept(tmp_path):
    # A learning rate that is far too high: the first evaluations are the best.
    config = small(
        optimizer=Sgd(learning_rate=0.02, momentum=0.9),
        duration="400 steps",
        evaluation=Evaluation(every="20 steps"),
        checkpoint=Checkpoint(every="20 steps", keep=2),
    )
    outcome = train(config, str(tmp_path))
    tests = {row["step"]: row["loss"] for row in rows(tmp_path) if row["split"] == "test"}
    best = min(tests, key=tests.__getitem__)
    assert outcome.best == {"step": best, "value": tests[best]}
    assert manifests.steps(str(tmp_path)) == sorted({best, 380, 400})


def test_early_stopping_counts_evaluations_and_stays_stopped(tmp_path):
    config = small(
        optimizer=Sgd(learning_rate=0.0),
        duration="4000 steps",
        evaluation=Evaluation(every="20 steps", patience=3),
    )
    outcome = train(config, str(tmp_path))
    assert outcome.step == 80 and outcome.status == "done"  # 20 is the best, then 40, 60, 80
    assert train(config, str(tmp_path)).status == "complete"


def test_evaluation_uses_the_averaged_parameters(tmp_path):
    config = small(optimizer=Adam(learning_rate=1e-2, ema=0.9), duration="50 steps")
    outcome = train(config, str(tmp_path))
    run_setup = setup(config)
    names = {"params": run_setup.state.params, "ema": run_setup.state.ema}
    read = checkpoint.load(str(tmp_path), 50, names)
    validation = run_setup.validation()
    empty = {"rows": {}, "other": {}}
    assert validation(read["ema"], empty) == pytest.approx(outcome.metrics, rel=1e-6)
    assert validation(read["params"], empty)["loss"] != pytest.approx(outcome.metrics["loss"])


@pytest.mark.parametrize("batch_size", [7, 64, 360, 1000])
def test_validation_is_exact_for_any_batch_size(batch_size):
    run_setup = setup(small(evaluation=Evaluation(batch_size=batch_size)))
    state = run_setup.init()
    metrics = run_setup.validation()(state.params, state.model_state)
    x = run_setup.test[slice(None)].x.reshape(len(run_setup.test), -1) / 16.0
    params = {k: np.asarray(v, np.float64) for k, v in arrays.flatten(state.params).items()}
    z = np.maximum(x @ params["encoder/layers/0/weight"].T + params["encoder/layers/0/bias"], 0)
    logits = z @ params["decoder/layers/0/kernel"] + params["decoder/layers/0/bias"]
    nll = (np.logaddexp(0, logits) - x * logits).sum(1).mean()
    assert metrics["nll"] == pytest.approx(nll, rel=1e-6)
    assert metrics["mse"] == pytest.approx(np.mean((1 / (1 + np.exp(-logits)) - x) ** 2), rel=1e-6)


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_whose_own_loss_is_not_finite_are_found(streaming):
    x = np.random.RandomState(0).rand(40, 3).astype(np.float32)
    test = x[:21].copy()
    test[[3, 4, 17], 1] = 1e25
    data = Data(feed="streaming" if streaming else "resident")
    config = small(evaluation=Evaluation(batch_size=8), batch_size=8, data=data)
    run_setup = setup(config, (Arrays(x, None, None), Arrays(test, None, None)))
    state, validation = run_setup.init(), run_setup.validation()
    assert not np.isfinite(validation(state.params, state.model_state)["mse"])
    assert validation.not_finite_rows(state.params, state.model_state) == [3, 4, 17]
    assert validation.not_finite_rows(state.params, state.model_state, most=2) == [3, 4]


class Asks:
    """A stop request that comes when somebody sets `now`."""

    now = False

    def __call__(self) -> bool:
        return self.now


@pytest.mark.parametrize(
    "where", ["compilation", "late compilation", "evaluation", "last evaluation"]
)
def test_stopped_inside_saves_and_ends_with_the_same_bits(tmp_path, monkeypatch, where):
    config = small(duration="100 steps")
    straight = train(config, str(tmp_path / "straight"))
    stop = Asks()
    if where.endswith("compilation"):
        compiling, made = Setup.compile, threading.Event()

        def compile_(self, feed):
            if where == "late compilation":  # after the first state was made
                made.wait()
                time.sleep(0.3)
            stop.now = True
            return compiling(self, feed)

        def start_(*arguments):
            state = start(*arguments)
            made.set()
            return state

        monkeypatch.setattr(Setup, "compile", compile_)
        monkeypatch.setattr(loop, "start", start_)
    else:
        evaluating = Validation.__call__

        left = iter([where == "evaluation", True])

        def evaluate(self, *arguments):
            stop.now = next(left)
            return evaluating(self, *arguments)

        monkeypatch.setattr(Validation, "__call__", evaluate)
    workdir = str(tmp_path / "stopped")
    outcome = train(config, workdir, stop=stop)
    assert outcome.status == "stopped"
    assert outcome.step == {"evaluation": 50, "last evaluation": 100}.get(where, 0)
    # Before its first step there is nothing to save, and no config.json beside it.
    assert (manifests.steps(workdir) or [0])[-1] == outcome.step
    monkeypatch.undo()
    again = train(config, workdir)
    assert again.status == "done" and again.metrics == straight.metrics
    assert_same_bits(tmp_path / "straight", tmp_path / "stopped", 100)
    # What was evaluated is known from then on.
    assert manifests.read(workdir, 100)["progress"]["evaluated"] == 100
    assert manifests.verify(workdir, 100)["progress"]["metrics"] == straight.metrics
    third = train(config, workdir)
    assert (third.status, third.metrics) == ("complete", straight.metrics)
    assert rows(tmp_path / "straight") == rows(tmp_path / "stopped")
    assert all(
        name.isdigit() or name[:-5].isdigit()
        for name in os.listdir(folder.path(workdir, "checkpoints"))
    )


HANGS = """
import os, sys, threading, time
from aejax.config import Evaluation
from tests.training.runs import small, train

first = None

def other():
    train(small(duration="1000000 steps", evaluation=Evaluation(every=""), watchdog_minutes=0.05),
        sys.argv[1] + "/beside")

if "beside" in sys.argv:
    threading.Thread(target=other, daemon=True).start()

def stop():
    global first
    rows = sys.argv[1] + "/metrics.jsonl"
    if first is None and os.path.exists(rows) and os.path.getsize(rows):
        first = time.monotonic()
    time.sleep(0.02)  # steps may be few
    if first is not None and time.monotonic() - first > 4:
        print("hangs from here", flush=True)
        time.sleep(30)
    return False

train(small(duration="1000000 steps", evaluation=Evaluation(every=""), watchdog_minutes=0.05),
    sys.argv[1], stop=stop)
"""


@pytest.mark.parametrize(
    ("others", "left"),
    [
        ((), r"3|2\.9\d*"),
        pytest.param(("beside",), r"[0-2]\.\d+", marks=pytest.mark.slow),
    ],
)
def test_the_watchdog_ends_what_hangs_and_only_that(tmp_path, others, left):
    """Steps go on for longer than it waits; then one question takes longer.

    It does so too where another run, in a thread beside it, goes on with its steps, and sets the
    process's timer again to what is left.
    """
    run = [sys.executable, "-c", HANGS, str(tmp_path), *others]
    ended = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stdout == "hangs from here\n"
    assert re.search(rf"Timeout \(0:00:0({left})\)!", ended.stderr) and "in stop" in ended.stderr


def test_init_from_takes_what_fits_and_says_so(tmp_path):
    train(small(duration="20 steps"), str(tmp_path / "old"))
    config = small(duration="20 steps", init_from=str(tmp_path / "old"))
    config.model.coder.hidden = (8,)  # 64-8-8: the old 64-8 and 8-64 fit at one end each
    lines: list[str] = []
    begun = start(setup(config), str(tmp_path / "new"), None, None, lines.append)
    table = [line.split() for line in "\n".join(lines).splitlines()[1:]]
    assert {words[1]: words[0] for words in table} == {
        "decoder/layers/0/bias": "replaced",  # 8 here, 64 there
        "decoder/layers/0/kernel": "replaced",
        "decoder/layers/1/bias": "fresh",
        "decoder/layers/1/kernel": "fresh",
        "encoder/layers/0/bias": "kept",
        "encoder/layers/0/weight": "kept",
        "encoder/layers/1/bias": "fresh",
        "encoder/layers/1/weight": "fresh",
    }
    stored = manifests.shapes(str(tmp_path / "old"), 20, "params")
    old = checkpoint.load(str(tmp_path / "old"), 20, {"params": stored})["params"]
    new = arrays.flatten(begun.state.params)
    for name in ("encoder/layers/0/bias", "encoder/layers/0/weight"):
        assert np.asarray(new[name]).tobytes() == np.asarray(old[name]).tobytes()
    # And the other way about: what the old run has too many is dropped.
    train(config, str(tmp_path / "new"))
    lines.clear()
    start(
        setup(small(init_from=str(tmp_path / "new"))), str(tmp_path / "x"), None, None, lines.append
    )
    assert sum(line.split()[0] == "dropped" for line in lines[0].splitlines()[1:]) == 4


def test_init_from_a_run_of_which_nothing_fits_is_one_line(tmp_path):
    train(small(duration="20 steps"), str(tmp_path / "old"))
    config, lines = small(init_from=str(tmp_path / "old")), list[str]()
    config.model.coder.hidden = (5,)
    said = r"so that nothing would be taken \(decoder/layers/0/bias \(5,\), there \(64,\)\)"
    with pytest.raises(InputError, match=said):
        start(setup(config), str(tmp_path / "new"), None, None, lines.append)
    assert not lines


def test_profile_is_written(tmp_path):
    train(small(duration="30 steps", profile="10:20"), str(tmp_path))
    assert list(Path(folder.path(str(tmp_path), "profile")).rglob("*.xplane.pb"))


def test_bad_settings_leave_no_folder(tmp_path):
    workdir = tmp_path / "none"
    with pytest.raises(InputError, match=r"config.batch_size=100 .* 8 devices .* multiple of 8"):
        train(small(batch_size=100), str(workdir), devices=jax.devices())
    said = r"config.mesh=\(3, 1, 1\).*there are 8. config.mesh may change .*; config.mesh.data=-1"
    with pytest.raises(InputError, match=said):
        train(small(mesh=Mesh(data=3)), str(workdir), devices=jax.devices())
    with pytest.raises(InputError, match="evaluation.metric=psnr: must be one of loss"):
        train(small(evaluation=Evaluation(metric="psnr")), str(workdir), devices=jax.devices())
    assert not workdir.exists()


def test_the_ledger_adds_up(tmp_path):
    train(small(), str(tmp_path))
    progress = manifests.read(str(tmp_path), 150)["progress"]
    seconds = progress["ledger"]["seconds"]
    last = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()][-1]
    assert sum(seconds.values()) == pytest.approx(last["seconds"], abs=0.5)
    assert seconds["steps"] > 0 and seconds["compilation"] > 0


@pytest.mark.parametrize("window", ["25:40", "10:400"])
def test_a_profile_that_begins_before_a_restart_or_outlasts_the_run_is_written(tmp_path, window):
    config = small(duration="30 steps")
    train(config, str(tmp_path))
    config.duration, config.profile = "45 steps", window  # 30 lies inside both
    train(config, str(tmp_path))
    assert list(Path(folder.path(str(tmp_path), "profile")).rglob("*.xplane.pb"))


def test_a_run_that_stopped_early_goes_on_with_more_patience(tmp_path):
    config = small(
        optimizer=Sgd(learning_rate=0.0),
        duration="200 steps",
        evaluation=Evaluation(every="20 steps", patience=3),
    )
    assert train(config, str(tmp_path)).step == 80
    config.evaluation.patience = 5
    assert train(config, str(tmp_path)).step == 120
    config.evaluation.patience = 0
    assert train(config, str(tmp_path)).step == 200
