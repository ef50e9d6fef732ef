"""Settings of a search: what is searched, how, and against what it is held."""

import dataclasses
from typing import Any

import numpy as np

from aejax.config import Config, check, steps_of
from aejax.errors import InputError
from aejax.models.coders import Transformer
from aejax.nn.layout import BLOCKS, expand
from aejax.search import space as spaces
from aejax.search.space import Layout, Space

METHODS = ("both", "supernet", "replacement", "none")
EQUAL = ("parameters", "latency")
PRICES = ("attention", "latency", "parameters")


@dataclasses.dataclass
class SupernetSearch:
    """Mandava et al. 2021; see supernet.py.

    Attributes:
        duration: of the supernet's training: until it has learned, and then the search.
        anneal: steps over which the temperature falls once it has learned.
        temperature: the first and the last.
        cost_weight: nats a row that a block of price 1 costs.
        target: what all blocks together may cost before any of it counts (PLANER's hinge); 0: all
            counts.
        share: of the steps, once it has learned, in which architecture weights learn as well, by
            every second row, from the first of those that a device sees at once.
        rate: how much faster they move than the blocks.
        warmup: least steps of the blocks alone.
        patient: wait until the loss is below `learned`; False begins after `warmup` whatever it is.
    """

    duration: str = "2500 steps"
    anneal: int = 1000
    temperature: tuple[float, ...] = (1.0, 0.1)
    cost_weight: float = 2.0
    target: float = 0.0
    share: float = 0.3
    rate: float = 30.0
    warmup: int = 0
    patient: bool = True

    def __post_init__(self):
        if len(self.temperature) != 2 or min(self.temperature) <= 0:
            raise ValueError(f"temperature={self.temperature}: must be two numbers above 0")
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share}: must be above 0 and at most 1")
        if self.anneal < 1:
            raise ValueError(f"anneal={self.anneal}: must be at least 1")
        if self.target < 0:
            raise ValueError(f"target={self.target}: must be at least 0")


@dataclasses.dataclass
class Replacement:
    """Bercovich et al. 2024 (Puzzle); see imitation.py and imitation.py.

    Attributes:
        imitation: duration of the local imitation of the parent's blocks.
        tuning: duration of each candidate layout's training as a whole, from grafted blocks.
        distil: share of the divergence from the parent in the loss of that training; see
            imitation.py. 0: the data's own loss alone.
    """

    imitation: str = "500 steps"
    tuning: str = "300 steps"
    distil: float = 0.0

    def __post_init__(self):
        if not 0 <= self.distil <= 1:
            raise ValueError(f"distil={self.distil}: must be from 0 to 1")


@dataclasses.dataclass
class Search:
    """A search for the layout of a transformer autoencoder.

    Attributes:
        run: the parent: what is trained, on what, and how each layout is trained again. Its layout
            is where replacement starts from.
        encoder_space: candidates of the encoder's slots, a string of letters a slot, or one for
            all; () to leave them as they are.
        decoder_space: as encoder_space.
        shuffle: deal the slots out anew for each seed, with their candidates (planted tasks).
        method: both | supernet | replacement | none (controls alone).
        supernet: the supernet's settings.
        replacement: the replacement's settings.
        price: what a block costs: attention (1 for each block of attention, nothing for others),
            latency (measured, as a share of the dearest block's) or parameters (likewise).
        learned: nats a row; a supernet or a parent whose loss is above it has learned nothing that
            a search could go by.
        margin: nats a row by which a cheaper layout may be worse.
        holdout_fraction: share of the training split, its end, that blocks never learn from:
            architecture weights do, and layouts are chosen by it.
        judged: how many of these rows layouts are chosen by (trials go by all of them).
        trials: how many layouts of the blocks that were found are trained for real, to keep the
            best of them (trials.py); 0 for none.
        controls: layouts to train beside those found, as par:5:4 or ffff; ENCODER|DECODER where
            both are searched.
        random: how many random layouts, of the blocks that the one found has, in other slots.
        seeds: how often each layout is trained again from nothing; 0 for not at all.
        equal: parameters | latency: train the layouts found once more with feed-forward blocks so
            wide that they have the parent's parameters, or take its time in training.
        latency: measure what each layout takes, and each block.
    """

    run: Config = dataclasses.field(default_factory=Config)
    encoder_space: tuple[str, ...] = ("afi",)
    decoder_space: tuple[str, ...] = ()
    shuffle: bool = False
    method: str = "both"
    supernet: SupernetSearch = dataclasses.field(default_factory=SupernetSearch)
    replacement: Replacement = dataclasses.field(default_factory=Replacement)
    price: str = "attention"
    learned: float = 2.2
    margin: float = 1.0
    holdout_fraction: float = 0.2
    judged: int = 1000
    trials: int = 0
    controls: tuple[str, ...] = ()
    random: int = 0
    seeds: int = 1
    equal: tuple[str, ...] = ()
    latency: bool = False

    def parent(self) -> Layout:
        """Where replacement starts from, and what each layout is held against."""
        layout = spaces.of(self.run.model)
        return Layout(
            *("".join(self._dealt(stack, getattr(layout, stack))) for stack in spaces.STACKS)
        )

    def space(self) -> Space:
        """The candidates of each slot."""
        layout = spaces.of(self.run.model)
        candidates = {}
        for stack in spaces.STACKS:
            slots = getattr(layout, stack)
            given = tuple(getattr(self, f"{stack}_space")) or tuple(slots)
            each = given * len(slots) if len(given) == 1 else given
            candidates[stack] = tuple(self._dealt(stack, each))
        return Space(**candidates)

    def _dealt(self, stack: str, each: Any) -> Any:
        if not self.shuffle:
            return each
        draw = np.random.RandomState(self.run.seed).permutation(len(each))
        return [each[number] for number in draw]

    def layout(self, text: str) -> Layout:
        """A control by its text.

        Raises:
            InputError: not a layout of as many slots.
        """
        parent = self.parent()
        encoder, _, decoder = text.partition("|")
        try:
            expanded = Layout(expand(encoder), expand(decoder) if decoder else parent.decoder)
        except ValueError as error:
            raise InputError(f"config.controls={error}") from None
        for stack in spaces.STACKS:
            has, needs = len(getattr(expanded, stack)), len(getattr(parent, stack))
            if has != needs:
                raise InputError(
                    f"config.controls={text}: the {stack} has {needs} slots, not {has}"
                )
        return expanded


def check_search(settings: Search) -> None:
    """Checks all that can be wrong in the settings alone.

    Raises:
        InputError: with the setting's name, its value and what is accepted.
    """
    run = settings.run
    try:
        check(run)
    except InputError as error:
        raise InputError(str(error).replace("config.", "config.run.", 1)) from None
    if not isinstance(getattr(run.model, "coder", None), Transformer):
        raise InputError("config.run.model.coder: must be transformer; its slots are searched")
    if run.pretrain is not None:
        raise InputError("config.run.pretrain: must be none in a search")
    for name, accepted in (("method", METHODS), ("price", PRICES)):
        if getattr(settings, name) not in accepted:
            value = getattr(settings, name)
            raise InputError(f"config.{name}={value}: must be {' or '.join(accepted)}")
    for what in settings.equal:
        if what not in EQUAL:
            raise InputError(f"config.equal={what}: must be {' or '.join(EQUAL)}")
    if settings.equal and not settings.seeds:
        raise InputError("config.seeds=0: must be at least 1 with config.equal")
    for name, least in (("judged", 1), ("trials", 0), ("random", 0), ("seeds", 0)):
        if getattr(settings, name) < least:
            raise InputError(f"config.{name}={getattr(settings, name)}: must be at least {least}")
    if settings.trials == 1:
        raise InputError("config.trials=1: must be 0 or at least 2")
    if settings.replacement.distil and getattr(run.model.bottleneck, "samples", 1) > 1:
        raise InputError(
            f"config.replacement.distil={settings.replacement.distil}: must be 0 with"
            f" config.run.model.bottleneck.samples={run.model.bottleneck.samples}"
        )
    if not 0 < settings.holdout_fraction < 1:
        raise InputError(
            f"config.holdout_fraction={settings.holdout_fraction}: must be above 0 and below 1"
        )
    _check_space(settings)
    for text in settings.controls:
        settings.layout(text)
    for name in ("supernet.duration", "replacement.imitation", "replacement.tuning"):
        part, field = name.split(".")
        steps_of(name, getattr(getattr(settings, part), field), run.batch_size, run.batch_size)


def _check_space(settings: Search) -> None:
    layout = spaces.of(settings.run.model)
    for stack in spaces.STACKS:
        name, slots = f"config.{stack}_space", getattr(layout, stack)
        given = getattr(settings, f"{stack}_space")
        if len(given) not in (0, 1, len(slots)):
            raise InputError(
                f"{name}={','.join(given)}: must have one entry, or one for each of the"
                f" {len(slots)} slots of {slots}"
            )
        for letters in given:
            if not letters or len(set(letters)) < len(letters) or not set(letters) <= set(BLOCKS):
                raise InputError(
                    f"{name}={letters}: must be different letters of {', '.join(BLOCKS)}"
                )
    space, parent = settings.space(), settings.parent()
    if not space.searched:
        raise InputError("config.encoder_space=(): there is no slot to search")
    for stack in spaces.STACKS:
        for letters, own in zip(getattr(space, stack), getattr(parent, stack), strict=True):
            if own not in letters:
                raise InputError(
                    f"config.{stack}_space={letters}: must hold the parent's own block, {own}"
                )
