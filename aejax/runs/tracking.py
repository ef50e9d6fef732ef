"""A run's output: metrics.jsonl, trackers, a progress bar or lines, and a ledger of its time."""

import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from aejax import kinds, pictures
from aejax.callbacks import Callback, Start
from aejax.runs import folder
from aejax.runs.rows_file import read_rows

_SECONDS_BETWEEN_LINES = 10.0
_PICTURE_PIXELS = 200  # at least half of this high
CATEGORIES: tuple[str, ...] = (
    "start-up",
    "compilation",
    "data wait",
    "steps",
    "evaluation",
    "checkpoints",
    "other",
)


class Ledger:
    """Where the time goes: one category at a time, summed over all starts of a run.

    Attributes:
        seconds: {category: seconds}.
        starts: how often the run was started.
        lost: seconds of work that a killed process had done since its last checkpoint.
    """

    def __init__(self, started: float | None = None):
        self.seconds: dict[str, float] = dict.fromkeys(CATEGORIES, 0.0)
        self.starts, self.lost = 1, 0.0
        self._category = "start-up"
        self._since = time.monotonic() if started is None else started

    def enter(self, category: str) -> str:
        """Time counts as this from now on; returns what it counted as before."""
        now, before = time.monotonic(), self._category
        self.seconds[before] += now - self._since
        self._category, self._since = category, now
        return before

    @contextlib.contextmanager
    def counting(self, category: str) -> Iterator[None]:
        """Time inside counts as this."""
        before = self.enter(category)
        try:
            yield
        finally:
            self.enter(before)

    @classmethod
    def of(cls, saved: dict[str, Any]) -> "Ledger":
        """The ledger that a finished run kept."""
        ledger = cls()
        ledger.seconds.update(saved["seconds"])
        ledger.starts, ledger.lost = saved["starts"], saved["lost"]
        return ledger

    def add(self, saved: dict[str, Any], lost_at: float | None) -> None:
        """Adds the ledger of the starts before this one.

        Args:
            saved: `to_dict` of the checkpoint that the run goes on from.
            lost_at: the run's clock at the last row that was lost, or None.
        """
        self.lost += max(0.0, (lost_at or 0.0) - sum(saved["seconds"].values()))
        for category, seconds in saved["seconds"].items():
            self.seconds[category] = self.seconds.get(category, 0.0) + seconds
        self.starts += saved["starts"]
        self.lost += saved["lost"]

    def total(self) -> float:
        """Seconds up to now, over all starts, without those that were lost."""
        self.enter(self._category)
        return sum(self.seconds.values())

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        self.total()
        seconds = {name: round(value, 6) for name, value in self.seconds.items()}
        return {"seconds": seconds, "starts": self.starts, "lost": round(self.lost, 6)}

    def summary(self) -> str:
        """One line for people: seconds by category and the share that was productive."""
        total = self.total() + self.lost
        parts = [f"{name} {value:.1f}" for name, value in self.seconds.items() if value >= 0.05]
        lost = f", lost {self.lost:.1f} in {self.starts} starts" if self.lost >= 0.05 else ""
        after = total - self.seconds["compilation"] - self.seconds["start-up"]
        share = self.seconds["steps"] / total if total else 0.0
        return (
            f"seconds: {', '.join(parts)}{lost}; {100 * share:.1f} % productive"
            f" ({100 * self.seconds['steps'] / after if after else 0:.1f} % after start-up and"
            " compilation)"
        )


def show(text: str) -> None:
    """A line for people, above the bars of all runs."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:  # in one piece: a run beside this one may show a line as well
        print(f"{text}\n", end="", file=sys.stderr, flush=True)


def metrics_line(metrics: dict[str, float], shares: Sequence[str] = ()) -> str:
    """Numbers with their names, for people; those that are shares of the rows in %.

    Args:
        metrics: as a row of metrics.jsonl has them.
        shares: as `Trainable` has them.
    """
    return "  ".join(
        f"{name} {100 * value:.5g} %" if name in shares else f"{name} {value:.5g}"
        for name, value in metrics.items()
    )


def _plain(value: Any) -> Any:
    """A value as strict JSON knows it: null for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


@dataclasses.dataclass
class Tracker:
    """Writes and shows a run; everything here happens in the main process alone.

    Rows and pictures are written beside the thread that hands them over: tenths of a millisecond
    for a row, ten milliseconds for a picture, in which a GPU would wait.

    Attributes:
        workdir: the run's folder.
        total: steps of the run.
        first: step that it starts at.
        trackers: called in the thread that writes.
        callbacks: called in the thread that calls this tracker.
        quiet: show nothing.
        main: whether this is the process that writes and shows; the others do neither.
        label: stands before each line and the bar, of a run that is one of several.
    """

    workdir: str
    total: int
    first: int
    trackers: Sequence[Callback] = ()
    callbacks: Sequence[Callback] = ()
    quiet: bool = False
    main: bool = True
    label: str = ""

    def __post_init__(self):
        self.quiet = self.quiet or not self.main
        self._name = folder.path(self.workdir, "metrics.jsonl") if self.main else os.devnull
        self._metrics = open(self._name, "ab", buffering=0)  # noqa: SIM115 - closed by `close`
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._drawing: Future[None] | None = None
        self._started: list[Callback] = []
        self._bar = None
        self._line_at = time.monotonic()
        if not self.quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=self.label,
                leave=not self.label,  # its last line stays; bars of others move up
                total=self.total,
                initial=self.first,
                unit="step",
                dynamic_ncols=True,
                smoothing=0.1,
            )

    def say(self, text: str) -> None:
        """A line for people."""
        if not self.quiet:
            show(f"{self.label}: {text}" if self.label else text)

    def start(self, config: Any) -> None:
        """Tells trackers and callbacks that the run starts, and which rows it had before."""
        if not self.main:
            return
        settings = json.loads(json.dumps(kinds.to_dict(config)))
        start = Start(folder.path(self.workdir), settings, self.first, self.total)
        for one in (*self.trackers, *self.callbacks):
            one.stop = False  # that it stopped an earlier run says nothing of this one
            one.on_start(start)
            self._started.append(one)
        deciding = [one for one in self.callbacks if one.replay]
        for row in read_rows(self.workdir) if deciding and self.first else ():
            for one in deciding:
                one.on_row(dict(row))

    def stop_requested(self) -> bool:
        """Whether a callback asks the run to stop."""
        return any(one.stop for one in self._started)

    def rows(self, rows: Sequence[dict[str, Any]]) -> None:
        """Rows of metrics.jsonl, flushed, and to trackers and callbacks; see `wait`."""
        self.wait()
        self._writing = self._writer.submit(self._write, rows)
        for row in rows:
            for one in self.callbacks:
                one.on_row(dict(row))

    def wait(self, drawn: bool = False) -> None:
        """Waits until every row stands, and every picture where `drawn`; raises their OSError."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
        if drawn and self._drawing is not None:
            drawing, self._drawing = self._drawing, None
            drawing.result()

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        lines = "".join(
            json.dumps({name: _plain(value) for name, value in row.items()}) + "\n" for row in rows
        )
        self._reopen_if_removed(rows[0]["step"])
        size = os.fstat(self._metrics.fileno()).st_size
        try:
            _write_all(self._metrics.fileno(), lines.encode())
        except OSError as error:
            with contextlib.suppress(OSError):  # no part of them stays behind
                os.ftruncate(self._metrics.fileno(), size)
            raise OSError(error.errno, f"{error.strerror}: a row of metrics.jsonl") from None
        for row in rows:
            for one in self.trackers:
                one.on_row(row)

    def _reopen_if_removed(self, step: int) -> None:
        """Begins metrics.jsonl anew where somebody has removed it."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._name), os.fstat(self._metrics.fileno())):
                return
        self._metrics.close()
        self._metrics = open(self._name, "ab", buffering=0)  # noqa: SIM115 - closed by `close`
        self.say(f"{self._name} was removed: it begins anew at step {step}")

    def saved(self, step: int) -> None:
        """Tells trackers and callbacks that the checkpoint of this step stands."""
        for one in self._started:
            one.on_save(step)

    def picture(self, name: str, image: np.ndarray, step: int, last: bool) -> None:
        """An image, uint8 [height, width, 1 or 3], to the trackers; the last one to figures/.

        Waits for the picture before it, and for the last one.

        Raises:
            OSError: of what could not be drawn.
        """
        self.wait(drawn=True)
        self._drawing = self._writer.submit(self._draw, name, image, step, last)
        for one in self.callbacks:
            one.on_picture(step, image)
        if last:
            self.wait(drawn=True)

    def _draw(self, name: str, image: np.ndarray, step: int, last: bool) -> None:
        for one in self.trackers:
            one.on_picture(step, image)
        if last:
            from PIL import Image

            path = folder.path(self.workdir, "figures", f"{name}.png")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shown = pictures.enlarged(image, max(1, _PICTURE_PIXELS // image.shape[0]))
            Image.fromarray(shown.squeeze(-1) if shown.shape[-1] == 1 else shown).save(path)

    def progress(self, step: int, loss: float | None, rate: float, left: float) -> None:
        """Moves the bar, or now and then prints a line with loss, rate and time left.

        Args:
            step: steps done.
            loss: of the last row, if there is one.
            rate: examples a second.
            left: seconds to the end at this rate.
        """
        if self._bar is not None:
            if loss is not None:
                self._bar.set_postfix_str(f"loss {loss:.5g}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if loss is None or now - self._line_at < _SECONDS_BETWEEN_LINES:
            return
        self._line_at = now
        self.say(
            f"step {step}/{self.total}  loss {loss:.5g}  {rate:.0f} examples/s  {left:.0f} s left"
        )

    def close(self, status: str = "failed") -> None:
        """Closes all files, once every row and picture was written or tried.

        Args:
            status: how the run ended, for trackers and callbacks.
        """
        self._writer.shutdown()
        if self._bar is not None:
            self._bar.close()
            print("\r", end="", file=sys.stderr, flush=True)  # where it was wiped away
        self._metrics.close()
        with contextlib.ExitStack() as stack:  # one that fails keeps no other from its end
            for one in reversed(self._started):
                stack.callback(one.on_end, status)
