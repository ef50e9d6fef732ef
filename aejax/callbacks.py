"""Callbacks of a run: your functions, trackers, a live plot, early stopping.

    trainer.fit(callbacks=[print])                          each row of metrics.jsonl
    trainer.fit(callbacks=[StopWhen(lambda row: row["loss"] < 50)])

A callback is a function of a row, or a `Callback`. All get host numbers that the loop has fetched
anyway: they cost no wait for the devices. They run in the main process and in the thread that
called `fit`, beside the steps that are under way; an exception in one ends the run.
"""

import dataclasses
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from aejax.errors import InputError

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Start:
    """What a callback learns when a run starts or goes on.

    Attributes:
        folder: the run's folder, absolute.
        settings: all settings of the run, as plain JSON values.
        step: updates made before.
        total: updates of the whole run.
    """

    folder: str
    settings: dict[str, Any]
    step: int
    total: int


class Callback:
    """The moments of a run; override those that you need.

    A run that goes on gives `on_row` its earlier rows again, right after `on_start`: a callback
    whose state begins in `on_start` and follows from rows decides as if nothing had interrupted the
    run.

    Attributes:
        stop: set it to True to end the run: it stops after the steps that are under way, with all
            saved, and `fit` returns with the status "stopped".
        replay: whether it gets earlier rows again; False for one that only writes rows somewhere,
            as a plain function has it.
    """

    stop: bool = False
    replay: bool = True

    def on_start(self, start: Start) -> None:
        """The run is about to make its first step of this start."""

    def on_row(self, row: Row) -> None:
        """A row of metrics.jsonl: step, split (train or test), loss, its terms, seconds.

        Earlier rows of a run that goes on have steps up to `start.step`, and NaN for any number
        that was not finite.
        """

    def on_picture(self, step: int, picture: np.ndarray) -> None:
        """An evaluation's picture, uint8 [height, width, 1 or 3]: rows above reconstructions."""

    def on_save(self, step: int) -> None:
        """The checkpoint of this step stands."""

    def on_end(self, status: str) -> None:
        """The run ends: done, stopped (all is saved) or failed."""


@dataclasses.dataclass
class _Function(Callback):
    """A plain function of each row."""

    function: Callable[[Row], Any]
    replay = False

    def on_row(self, row: Row) -> None:
        self.function(row)


def as_callbacks(callbacks: Iterable[Any]) -> list[Callback]:
    """Callbacks and plain functions, the latter as callbacks.

    Raises:
        InputError: one is neither.
    """
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise InputError("callbacks: must be a list, such as [print]")
    out = []
    for one in callbacks:
        if isinstance(one, type) or not (isinstance(one, Callback) or callable(one)):
            raise InputError(
                f"callbacks: {one!r} is neither a function of a row nor an aejax.callbacks.Callback"
            )
        out.append(one if isinstance(one, Callback) else _Function(one))
    return out


@dataclasses.dataclass
class StopWhen(Callback):
    """Stops the run once a function of a row says so, of an earlier start's rows as well.

    Attributes:
        condition: row -> whether to stop.
        split: rows of this split alone; "" for all.
    """

    condition: Callable[[Row], bool]
    split: str = ""

    def on_row(self, row: Row) -> None:
        if self.split in ("", row["split"]) and self.condition(row):
            self.stop = True


@dataclasses.dataclass
class LivePlot(Callback):
    """Draws a number of the rows against steps in a notebook, anew every few seconds.

    Outside of a notebook it shows nothing; `figure` draws what it has got there too.

    Attributes:
        names: what is drawn, one axis each.
        seconds: between two drawings.
    """

    names: Sequence[str] = ("loss",)
    seconds: float = 2.0

    def __post_init__(self):
        self._points: dict[tuple[str, str], tuple[list, list]] = {}
        self._drawn_at, self._shown = -np.inf, None

    def on_start(self, start: Start) -> None:
        self._points.clear()

    def on_row(self, row: Row) -> None:
        for name in self.names:
            if name in row:
                steps, values = self._points.setdefault((name, row["split"]), ([], []))
                steps.append(row["step"])
                values.append(row[name])
        if time.monotonic() - self._drawn_at > self.seconds:
            self._draw()

    def on_end(self, status: str) -> None:
        self._draw()

    def figure(self) -> Any:
        """The matplotlib figure as it is now."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5 * len(self.names), 3), layout="constrained")
        for axes, name in zip(
            np.ravel(figure.subplots(1, len(self.names))), self.names, strict=True
        ):
            for (drawn, split), (steps, values) in self._points.items():
                if drawn == name:
                    axes.plot(steps, values, ".-" if split == "test" else "-", label=split)
            axes.set(xlabel="step", ylabel=name)
            if axes.lines:
                axes.legend()
        return figure

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        if not _in_notebook():
            return
        from IPython.display import display  # pyright: ignore - of the notebook that it runs in

        if self._shown is None:
            self._shown = display(self.figure(), display_id=True)
        else:
            self._shown.update(self.figure())


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; a plain script and a terminal show no pictures."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


class TensorBoard(Callback):
    """Writes TensorBoard's event files into the run's folder."""

    replay = False

    def on_start(self, start: Start) -> None:
        from tensorboardX import SummaryWriter

        self._events: Any
        name = os.path.join(start.folder, "tensorboard")
        # What an earlier start wrote beyond the step that this one goes on from is taken back.
        self._events = SummaryWriter(name, purge_step=start.step or None)
        text = json.dumps(start.settings, indent=1)
        self._events.add_text("config", f"```\n{text}\n```", start.step)

    def on_row(self, row: Row) -> None:
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore - made by protoc

        # One event a row: one for each number takes four times as long.
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in _numbers(row).items()
        ]
        self._events.file_writer.add_summary(Summary(value=values), row["step"])

    def on_picture(self, step: int, picture: np.ndarray) -> None:
        self._events.add_image("reconstruction", picture, step, dataformats="HWC")

    def on_end(self, status: str) -> None:
        self._events.close()


class Wandb(Callback):
    """Logs to Weights & Biases; offline where neither a key nor a login is there.

    A run that goes on has the id that its folder keeps, wandb/id.
    """

    replay = False

    def on_start(self, start: Start) -> None:
        import wandb  # pyright: ignore - an extra

        place = os.path.join(start.folder, "wandb")
        os.makedirs(place, exist_ok=True)
        known = os.environ.get("WANDB_API_KEY") or wandb.api.api_key
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "aejax"),
            name=os.path.basename(start.folder),
            id=_kept_id(os.path.join(place, "id")),
            resume="allow",
            dir=start.folder,
            config=start.settings,
            mode=os.environ.get("WANDB_MODE") or ("online" if known else "offline"),  # pyright: ignore
            settings=wandb.Settings(silent=True),
        )
        # Rows of a run that goes on may repeat steps, which wandb's own counter does not allow.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def on_row(self, row: Row) -> None:
        self._run.log({"step": row["step"], **_numbers(row)})

    def on_picture(self, step: int, picture: np.ndarray) -> None:
        import wandb  # pyright: ignore - an extra

        self._run.log({"step": step, "reconstruction": wandb.Image(picture.squeeze())})

    def on_end(self, status: str) -> None:
        self._run.finish(exit_code=int(status == "failed"))


class Trackio(Callback):
    """Logs to trackio's local store (TRACKIO_DIR, or the Hugging Face cache)."""

    replay = False

    def on_start(self, start: Start) -> None:
        import trackio  # pyright: ignore - an extra

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "aejax"),
            name=os.path.basename(start.folder),
            config=start.settings,
            resume="allow",
        )

    def on_row(self, row: Row) -> None:
        self._run.log(_numbers(row), step=row["step"])

    def on_end(self, status: str) -> None:
        self._run.finish()


# Trackers by the name that `config.trackers` has for them, and the package that each needs.
TRACKERS: dict[str, tuple[type[Callback], str]] = {
    "tensorboard": (TensorBoard, "tensorboardX"),
    "wandb": (Wandb, "wandb"),
    "trackio": (Trackio, "trackio"),
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuses names that are no tracker, stand twice, or whose package is not installed.

    Raises:
        InputError: one of these.
    """
    for number, name in enumerate(names):
        if name not in TRACKERS or name in names[:number]:
            raise InputError(
                f"config.trackers={','.join(names)}: each must be one of"
                f" {', '.join(TRACKERS)}, once"
            )
        package = TRACKERS[name][1]
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"config.trackers={','.join(names)}: the package {package} is not installed;"
                f" pip install 'aejax[{name}]'"
            )


def _numbers(row: Row) -> dict[str, float]:
    """{"split/name": value} of a row's real numbers."""
    return {
        f"{row['split']}/{name}": value for name, value in row.items() if isinstance(value, float)
    }


def _kept_id(path: str) -> str:
    """The id in a file, drawn and written where there is none."""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    drawn = os.urandom(4).hex()
    with open(path, "w", encoding="utf-8") as file:
        file.write(drawn)
    return drawn
