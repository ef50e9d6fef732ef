"""What is compared: which programs take part, in which unit, and where ratios should stand."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Question:
    """One value of --what.

    Attributes:
        programs: name in the results -> module of this package, and settings of its own.
        ratios: names of "a / b" -> where the best should stand; None for nowhere.
        network: which of aejax's runs (`aejax_models`); "" for none.
        unit: "epoch" or "step": what seconds are told for; "run" for whole processes.
        epochs: of a round, by default; of whole processes all.
        tolerance: the most by which losses may differ, as a share of them.
        settings: of all programs.
    """

    programs: dict[str, tuple[str, dict[str, Any]]]
    ratios: dict[str, tuple[str, float] | None]
    network: str = ""
    unit: str = "epoch"
    epochs: int = 5
    tolerance: float = 0.01
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


_DENSE: dict[str, tuple[str, dict[str, Any]]] = {
    "bare_scan": ("bare_scan", {}),
    "aejax": ("aejax_trainer", {"feed": "resident", "with_evaluation": False}),
    "keras": ("keras_dense", {}),
    "torch": ("torch_dense", {}),
}
_PARTS = ("checkpoints", "trackers", "rows")


def _without(part: str) -> tuple[str, dict[str, Any]]:
    program, settings = _DENSE["aejax"]
    return program, {**settings, "without": part}


_STREAMING = ("aejax_trainer", {"feed": "streaming", "with_evaluation": False})

QUESTIONS = {
    # 784-32-784, batch 256: seconds an epoch, aejax by its public trainer with everything on.
    "dense": Question(
        _DENSE,
        {
            "aejax / bare_scan": ("at most", 1.05),
            "keras / aejax": ("at least", 1.4),
            "torch / aejax": ("at least", 1.8),
        },
        network="dense",
    ),
    # What makes the trainer's time above the bare scan's: its dispatch alone, and the trainer
    # without one thing at a time.
    "parts": Question(
        {
            "bare_scan": _DENSE["bare_scan"],
            "dispatch": ("aejax_dispatch", {}),
            "aejax": _DENSE["aejax"],
            **{f"without {part}": _without(part) for part in _PARTS},
        },
        {
            f"{name} / bare_scan": None
            for name in ("dispatch", "aejax", *map("without {}".format, _PARTS))
        },
        network="dense",
        tolerance=math.inf,  # some tell the loss of other rows
    ),
    # The same from starting Python to its end, without a compilation cache and with one (warm).
    "process": Question(
        _DENSE,
        {
            "aejax / keras": ("at most", 0.7),
            "aejax warm / keras warm": ("at most", 0.7),
            "aejax / torch": None,
            "aejax / bare_scan": None,
        },
        network="dense",
        unit="run",
        epochs=10,
    ),
    # The trainer reading its rows as it goes, against the data on the device.
    "streaming": Question(
        {"resident": _DENSE["aejax"], "streaming": _STREAMING},
        {"streaming / resident": ("at most", 1.5)},
        network="dense",
    ),
    # Peak resident memory of one whole run of each.
    "memory": Question(
        _DENSE | {"aejax streaming": _STREAMING}, {}, network="dense", unit="run", epochs=10
    ),
    # A step of the preset `convolutional` with 512 hidden units.
    "convolution": Question(
        {"aejax": ("aejax_dispatch", {}), "torch": ("torch_convolution", {})},
        {"aejax / torch": ("at most", 1.5)},
        network="convolutional",
        unit="step",
        tolerance=0.03,
        settings={"batch_size": 128, "rate": 2e-3},
    ),
    # An epoch of the preset `variational`, each library by its own trainer.
    "variational": Question(
        {
            "aejax": ("aejax_trainer", {"feed": "resident", "with_evaluation": True}),
            "pythae": ("pythae_variational", {}),
        },
        {"pythae / aejax": ("at least", 2.0)},
        network="variational",
        epochs=2,
    ),
    # An epoch of 784-500 with persistent chains, on 10,000 rows; the loss is -pseudo-likelihood.
    "rbm": Question(
        {
            "aejax": ("aejax_trainer", {"feed": "resident", "with_evaluation": False}),
            "sklearn": ("sklearn_rbm", {}),
        },
        {"sklearn / aejax": ("at least", 2.0)},
        network="rbm",
        epochs=1,
        tolerance=0.1,
        settings={"batch_size": 100, "rate": 0.05, "rows": 10_000, "units": 500},
    ),
    # One attention, forward and with its gradients.
    "attention": Question(
        {
            "aejax": ("jax_attention", {"form": "aejax"}),
            "jax": ("jax_attention", {"form": "jax"}),
            "torch": ("torch_attention", {}),
        },
        {"aejax / jax": None, "aejax / torch": None},
        unit="step",
    ),
}
