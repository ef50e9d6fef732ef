"""The slots that a search looks at, and one choice for each of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.models import Autoencoder
from aejax.nn.blocks import Choice
from aejax.nn.layout import slots

STACKS = ("encoder", "decoder")
# Tries for each layout that is drawn.
_DRAWS = 1000


@dataclasses.dataclass(frozen=True)
class Layout:
    """The blocks of the encoder's and of the decoder's slots."""

    encoder: str
    decoder: str

    def __str__(self) -> str:
        return f"{self.encoder}|{self.decoder}"

    def count(self, letters: str) -> int:
        """How many slots hold one of these blocks."""
        return sum(letter in letters for letter in self.encoder + self.decoder)


def read(text: str) -> Layout:
    """The layout of these letters, as `str` writes it."""
    encoder, _, decoder = text.partition("|")
    return Layout(encoder, decoder)


@dataclasses.dataclass(frozen=True)
class Space:
    """The candidates of each slot; those of one letter are not searched.

    Attributes:
        encoder: a string of letters for each slot.
        decoder: as encoder.
    """

    encoder: tuple[str, ...]
    decoder: tuple[str, ...]

    @property
    def searched(self) -> list[tuple[str, int, str]]:
        """(stack, slot, letters) of each slot that holds several candidates."""
        return [
            (stack, number, letters)
            for stack in STACKS
            for number, letters in enumerate(getattr(self, stack))
            if len(letters) > 1
        ]

    @property
    def letters(self) -> set[str]:
        """All candidates of the searched slots."""
        return {letter for _, _, letters in self.searched for letter in letters}

    def holds(self, layout: Layout) -> bool:
        """Whether every slot has one of its candidates."""
        return all(
            letter in letters
            for stack in STACKS
            for letter, letters in zip(getattr(layout, stack), getattr(self, stack), strict=True)
        )

    def filled(self, letter: str) -> Layout:
        """Every searched slot with this letter, candidate or not; the others as they are."""
        made = {
            stack: "".join(letter if len(each) > 1 else each for each in getattr(self, stack))
            for stack in STACKS
        }
        return Layout(**made)

    def layout(self, choices: list[int]) -> Layout:
        """The layout with this candidate in each searched slot, in their order."""
        left = iter(choices)
        made = {
            stack: "".join(
                letters[next(left)] if len(letters) > 1 else letters
                for letters in getattr(self, stack)
            )
            for stack in STACKS
        }
        return Layout(**made)

    def choices(self, layout: Layout) -> list[int]:
        """The candidate that this layout has in each searched slot."""
        return [
            letters.index(getattr(layout, stack)[number])
            for stack, number, letters in self.searched
        ]

    def model(self, base: Autoencoder) -> Autoencoder:
        """The same autoencoder with all candidates in their slots."""
        mixed = {
            stack: "".join(
                f"[{letters}]" if len(letters) > 1 else letters for letters in getattr(self, stack)
            )
            for stack in STACKS
        }
        return _with(base, mixed["encoder"], mixed["decoder"])


def network(layout: Layout | str) -> str:
    """The layout's letters without empty slots; layouts with equal results compute the same."""
    return str(layout).replace("i", "")


def rearranged(space: Space, layout: Layout, count: int, seed: int) -> list[Layout]:
    """Random layouts with the same blocks in other slots, as different networks.

    Args:
        space: the candidates of the slots.
        layout: the layout whose blocks are permuted; it is not among the results.
        count: how many; fewer are returned where fewer exist.
        seed: of the permutations.
    """
    letters = [getattr(layout, stack)[number] for stack, number, _ in space.searched]
    draw = np.random.RandomState(seed)
    each = [candidates for _, _, candidates in space.searched]
    known, out = {network(layout)}, []
    for _ in range(_DRAWS * count):
        dealt = [letters[place] for place in draw.permutation(len(letters))]
        if all(one in candidates for one, candidates in zip(dealt, each, strict=True)):
            choices = [candidates.index(one) for one, candidates in zip(dealt, each, strict=True)]
            made = space.layout(choices)
            if network(made) not in known:
                known.add(network(made))
                out.append(made)
        if len(out) == count:
            break
    return out


def of(base: Autoencoder) -> Layout:
    """The layout of an autoencoder, letter by letter."""
    coder: Any = base.coder
    return Layout("".join(slots(coder.encoder_layout)), "".join(slots(coder.decoder_layout)))


def with_layout(base: Autoencoder, layout: Layout) -> Autoencoder:
    """The same autoencoder with these blocks."""
    return _with(base, layout.encoder, layout.decoder)


def with_width(base: Autoencoder, feed_forward: int) -> Autoencoder:
    """The same autoencoder with feed-forward blocks of so many hidden units."""
    coder: Any = dataclasses.replace(base.coder, feed_forward=feed_forward)
    return dataclasses.replace(base, coder=coder)


def _with(base: Autoencoder, encoder: str, decoder: str) -> Autoencoder:
    coder: Any = dataclasses.replace(base.coder, encoder_layout=encoder, decoder_layout=decoder)
    return dataclasses.replace(base, coder=coder)


def choice_slots(module: Any) -> list[Choice]:
    """The slots of an autoencoder module that hold several candidates, in a space's order."""
    stacks = (module.encoder.stack, module.decoder.stack)
    return [slot for stack in stacks for slot in stack.slots if isinstance(slot, Choice)]


def copied(module: Any, change: Callable[[jax.Array], jax.Array] = lambda leaf: leaf) -> Any:
    """A copy of the module with changed arrays; setting something in it leaves the module alone."""
    graph, state = nnx.split(module)
    return nnx.merge(graph, jax.tree.map(change, nnx.to_pure_dict(state)))


def mixed(module: Any, weights: list[jax.Array]) -> Any:
    """A copy of the module whose searched slots mix their candidates by these weights."""
    copy = copied(module)
    for slot, weight in zip(choice_slots(copy), weights, strict=True):
        slot.mix.set_value(weight)
    return copy


def frozen(module: Any) -> Any:
    """A copy of the module through which no gradient reaches its parameters."""
    return copied(module, jax.lax.stop_gradient)


def chosen(space: Space, choices: list[int]) -> list[jax.Array]:
    """Weights that are 1 for one candidate of each searched slot."""
    return [
        jax.nn.one_hot(choice, len(letters), dtype=jnp.float32)
        for choice, (_, _, letters) in zip(choices, space.searched, strict=True)
    ]
