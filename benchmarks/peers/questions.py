"""What is compared: which programs take part, in which unit, and where ratios should stand."""

import dataclasses
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
    "aejax": ("aejax_trainer", {"feed": "resident"}),
    "keras": ("keras_dense", {}),
    "torch": ("torch_dense", {}),
}
_STREAMING = ("aejax_trainer", {"feed": "streaming"})

QUESTIONS = {
    "dense": Question(
        _DENSE,
        {
            "aejax / bare_scan": ("at most", 1.1),
            "keras / aejax": ("at least", 1.4),
            "torch / aejax": ("at least", 1.8),
            "aejax with evaluation / bare_scan": None,
        },
        network="dense",
    ),
    "process": Question(
        _DENSE,
        {
            "aejax / keras": ("at most", 0.7),
            "aejax warm / keras": ("at most", 0.7),
            "aejax warm / keras warm": None,
            "aejax / torch": None,
            "aejax / bare_scan": None,
            "aejax warm / bare_scan warm": None,
        },
        network="dense",
        unit="run",
        epochs=10,
    ),
    "streaming": Question(
        {"resident": _DENSE["aejax"], "streaming": _STREAMING},
        {"streaming / resident": ("at most", 1.5)},
        network="dense",
    ),
    "memory": Question(
        _DENSE | {"aejax streaming": _STREAMING}, {}, network="dense", unit="run", epochs=10
    ),
    "convolution": Question(
        {"aejax": ("aejax_dispatch", {}), "torch": ("torch_convolution", {})},
        {"aejax / torch": ("at most", 1.5)},
        network="convolutional",
        unit="step",
        tolerance=0.03,
        settings={"batch_size": 128, "rate": 2e-3},
    ),
    "variational": Question(
        {
            "aejax": ("aejax_trainer", {"feed": "resident"}),
            "pythae": ("pythae_variational", {}),
        },
        {"pythae / aejax with evaluation": ("at least", 2.0), "pythae / aejax": None},
        network="variational",
        epochs=2,
    ),
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
