"""Optimizers by name, from optax, with their schedules, clipping and masked weight decay."""

import dataclasses
from typing import Any

import jax
import optax

from aejax.errors import check_least
from aejax.kinds import part
from aejax.registry import Kinds, required


def _check_share(name: str, value: float, one: bool = False) -> None:
    """Refuses what is not from 0 up to 1, 1 itself only where `one` says so."""
    if not 0 <= value <= 1 or (value == 1 and not one):
        raise ValueError(f"{name}={value}: must be from 0 up to {'' if one else 'below '}1")


def _check_eps(value: float) -> None:
    if not value > 0:
        raise ValueError(f"eps={value}: must be above 0")


class Schedule:
    """How the learning rate changes. Required: `schedule`."""

    @required()
    def schedule(self, peak: float, steps: int) -> optax.Schedule:
        """step -> learning rate, from `peak` on, over this many steps after the warm-up."""
        raise NotImplementedError


@dataclasses.dataclass
class Constant(Schedule):
    """The learning rate stays."""

    def schedule(self, peak: float, steps: int) -> optax.Schedule:
        return optax.constant_schedule(peak)


@dataclasses.dataclass
class Cosine(Schedule):
    """peak * (final + (1 - final) * (1 + cos(pi t / T)) / 2) (Loshchilov and Hutter 2017).

    Attributes:
        final: the last learning rate, as a share of the peak.
    """

    final: float = 0.0

    def __post_init__(self):
        _check_share("final", self.final, one=True)

    def schedule(self, peak: float, steps: int) -> optax.Schedule:
        return optax.cosine_decay_schedule(peak, max(steps, 1), alpha=self.final)


@dataclasses.dataclass
class StepDecay(Schedule):
    """Multiplied by `factor` at each milestone.

    Attributes:
        milestones: shares of the run after its warm-up, rising, between 0 and 1.
        factor: what the rate is multiplied by.
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1

    def __post_init__(self):
        shares = tuple(self.milestones)
        if list(shares) != sorted(set(shares)) or any(not 0 < share < 1 for share in shares):
            raise ValueError(f"milestones={shares}: must rise between 0 and 1")

        _check_share("factor", self.factor, one=True)

    def schedule(self, peak: float, steps: int) -> optax.Schedule:
        at: dict[int, float] = {}
        for share in self.milestones:
            step = round(share * steps)
            at[step] = at.get(step, 1.0) * self.factor
        return optax.piecewise_constant_schedule(peak, at)


SCHEDULES = Kinds(
    "aejax.schedules", Schedule, {"constant": Constant, "cosine": Cosine, "step": StepDecay}
)


@dataclasses.dataclass
class Optimizer:
    """What all optimizers have.

    Attributes:
        learning_rate: the peak.
        schedule: constant | cosine | step, over the whole run.
        warmup: share of the run in which the rate rises from 0 to its peak.
        weight_decay: decoupled, on matrices and kernels alone (no biases, no norms).
        clip: greatest global norm of the gradient; 0 for no clipping.
        ema: decay of the exponential moving average of the parameters that evaluation uses; 0 for
            none.
    """

    learning_rate: float = 1e-3
    schedule: Any = part(SCHEDULES, Constant)
    warmup: float = 0.0
    weight_decay: float = 0.0
    clip: float = 0.0
    ema: float = 0.0

    def __post_init__(self):
        for name in ("learning_rate", "weight_decay", "clip"):
            check_least(name, getattr(self, name), 0)
        _check_share("warmup", self.warmup)
        _check_share("ema", self.ema)

    @required()
    def scale(self) -> optax.GradientTransformation:
        """From gradients to directions; the learning rate comes after."""
        raise TypeError("choose one of its kinds")


@dataclasses.dataclass
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015).

    Attributes:
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        super().__post_init__()
        _check_share("b1", self.b1)
        _check_share("b2", self.b2)
        _check_eps(self.eps)

    def scale(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=self.eps)


@dataclasses.dataclass
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    weight_decay: float = 1e-2


@dataclasses.dataclass
class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012), which sets its own scale: its rate is 1.

    With the learning rate 0.001 that Keras gives it, it hardly trains.

    Attributes:
        rho: decay of both averages.
        eps: added under the roots.
    """

    learning_rate: float = 1.0
    rho: float = 0.95
    eps: float = 1e-7

    def __post_init__(self):
        super().__post_init__()
        _check_share("rho", self.rho)
        _check_eps(self.eps)

    def scale(self) -> optax.GradientTransformation:
        return optax.scale_by_adadelta(rho=self.rho, eps=self.eps)


@dataclasses.dataclass
class Sgd(Optimizer):
    """Stochastic gradient descent.

    Attributes:
        momentum: decay of the running sum of gradients; 0 for none.
        nesterov: look ahead (Nesterov 1983).
    """

    learning_rate: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_share("momentum", self.momentum)

    def scale(self) -> optax.GradientTransformation:
        if not self.momentum:
            return optax.identity()
        return optax.trace(decay=self.momentum, nesterov=self.nesterov)


KINDS = Kinds(
    "aejax.optimizers",
    Optimizer,
    {"adam": Adam, "adamw": AdamW, "adadelta": Adadelta, "sgd": Sgd},
)


def learning_rate(settings: Optimizer, steps: int) -> optax.Schedule:
    """The learning rate by step: a linear warm-up, then the schedule over what is left."""
    warmup = round(settings.warmup * steps)
    after = settings.schedule.schedule(settings.learning_rate, steps - warmup)
    if not warmup:
        return after
    rise = optax.linear_schedule(0.0, settings.learning_rate, warmup)
    return optax.join_schedules([rise, after], [warmup])


def build(settings: Optimizer, steps: int) -> optax.GradientTransformation:
    """The optax transformation of these settings for a run of this many steps."""
    chain = []
    if settings.clip:
        chain.append(optax.clip_by_global_norm(settings.clip))
    chain.append(settings.scale())
    if settings.weight_decay:
        chain.append(optax.add_decayed_weights(settings.weight_decay, mask=_decays))
    chain.append(optax.scale_by_learning_rate(learning_rate(settings, steps)))
    return optax.chain(*chain)


def _decays(params: Any) -> Any:
    """True for arrays with at least two axes: kernels, not biases, scales or norms."""
    return jax.tree.map(lambda array: array.ndim > 1, params)
