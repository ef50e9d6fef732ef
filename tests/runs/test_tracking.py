"""Writing metrics.jsonl, the ledger of time, and what a run shows."""

import io
import json
import os
import sys

import numpy as np
import pytest

from aejax.callbacks import TensorBoard
from aejax.config import Config
from aejax.models import Autoencoder, Classifier
from aejax.runs import tracking
from aejax.runs.tracking import (
    CATEGORIES,
    Ledger,
    Tracker,
    metrics_line,
)


class Clock:
    """time.monotonic and time.time that move when they are told to."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(tracking.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(tracking.time, "time", lambda: 5e8 + self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_every_second_counts_as_one_thing(clock):
    ledger = Ledger(started=clock.now - 4)  # the process is 4 seconds old
    clock.now += 1
    assert ledger.enter("compilation") == "start-up"
    clock.now += 10
    with ledger.counting("steps"):
        clock.now += 20
        with ledger.counting("checkpoints"):
            clock.now += 3
        clock.now += 5
    clock.now += 2
    assert ledger.total() == 45
    expected = {"start-up": 5.0, "compilation": 12.0, "steps": 25.0, "checkpoints": 3.0}
    assert ledger.seconds == {**dict.fromkeys(CATEGORIES, 0.0), **expected}
    clock.now += 1
    assert ledger.total() == 46 == sum(ledger.seconds.values())


def test_an_error_inside_ends_its_category(clock):
    ledger = Ledger()
    with pytest.raises(RuntimeError), ledger.counting("steps"):
        clock.now += 3
        raise RuntimeError
    clock.now += 1
    assert ledger.total() == 4
    assert (ledger.seconds["steps"], ledger.seconds["start-up"]) == (3, 1)


def test_a_finished_ledger_comes_back_as_it_was(clock):
    ledger = Ledger()
    with ledger.counting("evaluation"):
        clock.now += 7.25
    clock.now += 1
    saved = json.loads(json.dumps(ledger.to_dict()))
    assert saved["seconds"]["evaluation"] == 7.25 and saved["starts"] == 1 and saved["lost"] == 0
    clock.now += 100
    again = Ledger.of(saved)
    assert again.to_dict() == saved
    assert again.total() == 8.25


def test_starts_are_added_up_with_the_work_that_was_lost(clock):
    first = Ledger()
    with first.counting("steps"):
        clock.now += 10
    saved = first.to_dict()  # of the last checkpoint, at 10 seconds
    clock.now += 500  # killed; its last row was written at 14 seconds
    second = Ledger()
    clock.now += 2
    second.add(json.loads(json.dumps(saved)), lost_at=14.0)
    with second.counting("steps"):
        clock.now += 5
    assert second.total() == 17
    assert (second.seconds["steps"], second.seconds["start-up"]) == (15, 2)
    assert (second.starts, second.lost) == (2, 4)
    third = Ledger()
    third.add(second.to_dict(), lost_at=None)
    assert (third.starts, third.lost, third.total()) == (3, 4, 17)
    assert third.summary() == (
        "seconds: start-up 2.0, steps 15.0, lost 4.0 in 3 starts; 71.4 % productive"
        " (78.9 % after start-up and compilation)"
    )


def test_the_summary_of_nothing_divides_by_nothing(clock):
    assert Ledger().summary() == (
        "seconds: ; 0.0 % productive (0.0 % after start-up and compilation)"
    )


def tracker(tmp_path, **changes) -> Tracker:
    settings = {"total": 100, "first": 0, "quiet": False, **changes}
    return Tracker(str(tmp_path), **settings)


def test_rows_stand_once_waited_for_and_go_on_where_the_file_ends(tmp_path):
    rows = [{"step": step, "split": "train", "loss": 1 / step, "best": None} for step in (1, 2, 3)]
    for part in (rows[:2], rows[2:]):
        made = tracker(tmp_path)
        for row in part:
            made.rows([row])
        made.wait()
        written = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert json.loads(written[-1]) == part[-1]  # before it is closed
        made.close()
    assert [json.loads(one) for one in (tmp_path / "metrics.jsonl").open()] == rows
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full here")
def test_a_row_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    made = tracker(tmp_path)
    made.rows([{"step": 1, "split": "train", "loss": 1.0}])
    with pytest.raises(OSError, match="No space left"):
        made.rows([{"step": 2, "split": "train", "loss": 1.0}])
    made.close()  # nothing is left that could be written later, behind a row that is lost


def test_a_row_that_does_not_fit_leaves_no_half_of_it(tmp_path, monkeypatch):
    made = tracker(tmp_path)
    made.rows([{"step": 1, "split": "train", "loss": float("inf")}])
    made.wait()
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    assert json.loads(whole) == {"step": 1, "split": "train", "loss": None}  # as JSON knows it
    write, room = os.write, [20]

    def full(file: int, data: bytes) -> int:
        if not room:
            raise OSError(28, "No space left on device")
        return write(file, data[: room.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        made.rows([{"step": 2, "split": "train", "loss": 1.0}])
        with pytest.raises(OSError, match="No space left on device: a row of metrics.jsonl"):
            made.wait()
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    made.close()


def events(tmp_path) -> list:
    """Events of all files, in their order."""
    from tensorboardX.proto.event_pb2 import Event

    out = []
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):  # a record: length (8), its crc (4), the data, its crc (4)
            size = int.from_bytes(data[at : at + 8], "little")
            out.append(Event.FromString(data[at + 12 : at + 12 + size]))
            at += size + 16
    return out


def test_tensorboard_holds_every_number_of_every_row(tmp_path):
    made = tracker(tmp_path, trackers=[TensorBoard()])
    made.start(Config(seed=77))
    made.rows([{"step": 10, "split": "train", "loss": 0.25, "seconds": 1.5}])
    made.rows([{"step": 20, "split": "test", "loss": 0.125, "mse": 3.0}])
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    made.picture("reconstruction", image, 20, last=False)
    made.close()
    found = {
        (value.tag, event.step): value
        for event in events(tmp_path)
        for value in event.summary.value
    }
    scalars = {key: value.simple_value for key, value in found.items() if "/" in key[0]}
    scalars.pop(("config/text_summary", 0), None)
    assert scalars == {
        ("train/loss", 10): 0.25,
        ("train/seconds", 10): 1.5,
        ("test/loss", 20): 0.125,
        ("test/mse", 20): 3.0,
    }
    assert b'"seed": 77' in found["config/text_summary", 0].tensor.string_val[0]
    from PIL import Image

    shown = Image.open(io.BytesIO(found["reconstruction", 20].image.encoded_image_string))
    assert np.array_equal(np.asarray(shown), image)
    assert not (tmp_path / "figures").exists()


def test_a_run_that_goes_on_purges_what_tensorboard_holds_beyond(tmp_path):
    made = tracker(tmp_path, trackers=[TensorBoard()], first=50)
    made.start(Config())
    made.rows([{"step": 60, "split": "train", "loss": 0.5}])
    made.close()
    starts = [event for event in events(tmp_path) if event.WhichOneof("what") == "session_log"]
    assert [(event.session_log.status, event.step) for event in starts] == [(1, 50)]


@pytest.mark.parametrize(("channels", "factor"), [(1, 25), (3, 25)])
def test_the_last_picture_is_a_file_large_enough_to_look_at(tmp_path, channels, factor):
    from PIL import Image

    image = np.random.RandomState(0).randint(0, 256, (8, 6, channels)).astype(np.uint8)
    made = tracker(tmp_path)
    made.picture("reconstruction", image, 10, last=False)
    assert not (tmp_path / "figures").exists()
    made.picture("reconstruction", image, 20, last=True)
    made.close()
    read = np.asarray(Image.open(tmp_path / "figures" / "reconstruction.png"))
    wanted = image.repeat(factor, axis=0).repeat(factor, axis=1)
    assert np.array_equal(read, wanted.squeeze(-1) if channels == 1 else wanted)


def test_a_picture_that_could_not_be_drawn_is_told_when_pictures_are_waited_for(
    tmp_path, monkeypatch
):
    made = tracker(tmp_path, trackers=[events := TensorBoard()])
    made.start(Config())
    image = np.zeros((4, 4, 1), np.uint8)

    def full(*arguments, **more):
        raise OSError("no space left")

    monkeypatch.setattr(events, "on_picture", full)
    made.picture("reconstruction", image, 10, last=False)
    made.rows([{"step": 11, "split": "train", "loss": 0.5}])
    made.wait()
    for told in (made.wait, lambda drawn: made.picture("reconstruction", image, 20, last=False)):
        with pytest.raises(OSError, match="no space left"):
            told(drawn=True)
        made.picture("reconstruction", image, 10, last=False)
    made.close()


class Screen(io.StringIO):
    """A standard error that says whether it is a terminal."""

    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def shown(monkeypatch, tmp_path, terminal: bool, clock: Clock | None = None, **changes) -> str:
    """What a run shows that goes from step 40 to 100, a second for every ten steps."""
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    made = tracker(tmp_path, first=40, **changes)
    made.say("going on at step 40")
    for step in range(50, 101, 10):
        if clock is not None:
            clock.now += 4
        made.progress(step, 0.5 / step if step > 50 else None, rate=1234.5, left=100.0 - step)
    made.close()
    return screen.getvalue()


def test_a_log_gets_a_line_every_ten_seconds(monkeypatch, tmp_path, clock):
    assert shown(monkeypatch, tmp_path, False, clock).splitlines() == [
        "going on at step 40",
        "step 70/100  loss 0.0071429  1234 examples/s  30 s left",
        "step 100/100  loss 0.005  1234 examples/s  0 s left",
    ]


def test_a_terminal_gets_a_bar_and_lines_above_it(monkeypatch, tmp_path):
    text = shown(monkeypatch, tmp_path, True)
    assert "going on at step 40\n" in text
    assert "40/100" in text and "100/100" in text and "loss 0.005" in text
    assert "examples/s" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_one_of_several_runs_says_which(monkeypatch, tmp_path, terminal, clock):
    text = shown(monkeypatch, tmp_path, terminal, clock, label="again/aaff-1000")
    assert "again/aaff-1000: going on at step 40\n" in text
    assert ("again/aaff-1000:  40%" if terminal else "again/aaff-1000: step 100/100  loss") in text


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_shows_nothing(monkeypatch, tmp_path, terminal, clock):
    assert shown(monkeypatch, tmp_path, terminal, clock, quiet=True) == ""


def test_shares_are_shown_in_percent_and_other_numbers_as_they_are():
    metrics = {"error": 0.075, "loss": 0.25}
    assert metrics_line(metrics, Classifier().shares) == "error 7.5 %  loss 0.25"
    assert metrics_line(metrics, Autoencoder().shares) == "error 0.075  loss 0.25"
