"""The layout of a transformer: a string with one letter for the block of each slot.

`a` is self-attention, `w` self-attention within a window, `f` feed-forward and `i` the identity (no
block), so that `afaf` is two of the usual layers. Attention may be restricted: `l` sees a token
itself and those before it (causal attention), `r` itself and those after it, `s` itself alone.
Rules of the literature have names. Letters in brackets, `[afi]`, are one slot with all of these
blocks as candidates; a search uses them.
"""

import re

BLOCKS = {
    "a": "attention",
    "w": "attention within a window",
    "l": "attention to the left",
    "r": "attention to the right",
    "s": "attention to oneself",
    "f": "feed-forward",
    "i": "identity",
}
ATTENTION = "awlrs"
_LETTERS = ", ".join(BLOCKS)
_FORMS = f"letters of {_LETTERS}, or interleaved:LAYERS, sandwich:K:LAYERS, par:P:LAYERS"


def slots(layout: str) -> tuple[str, ...]:
    """The candidates of each slot, a single letter where nothing is to be chosen.

    Raises:
        ValueError: as `expand`, or brackets without two different letters.
    """
    if "[" not in layout:
        return tuple(expand(layout))
    found = re.findall(r"\[([a-z]+)\]|([a-z])", layout)
    each = tuple(several or one for several, one in found)
    whole = "".join(f"[{several}]" if several else one for several, one in found)
    for letters in each:
        if len(set(letters)) < len(letters) or not set(letters) <= set(BLOCKS):
            raise ValueError(f"{layout}: [{letters}] must be different letters of {_LETTERS}")
    if whole != layout or any(len(several) == 1 for several, _ in found):
        raise ValueError(f"{layout}: must be {_FORMS}, or at least two letters in brackets")
    return each


def expand(layout: str) -> str:
    """The letters of a layout that may be a rule by name.

    interleaved:N is the usual transformer of N layers. sandwich:K:N has N blocks of each kind, and
    begins with K of attention and ends with K of feed-forward (Press et al. 2020, "Improving
    Transformer Models by Reordering their Sublayers"). par:P:N makes one of P of its 2 N blocks
    attention, evenly over the first two thirds (Mandava et al. 2021, "Pay Attention when
    Required").

    Raises:
        ValueError: neither letters nor a rule, or numbers that the rule does not take.
    """
    name, *numbers = layout.split(":")
    rule = _RULES.get(name)
    if rule is None:
        wrong = sorted(set(layout) - set(BLOCKS))
        if not layout or wrong:
            raise ValueError(f"{layout}: must be {_FORMS}")
        return layout
    make, count = rule
    if len(numbers) != count or not all(_is_number(number) for number in numbers):
        raise ValueError(f"{layout}: must be {_FORMS}")
    return make(layout, *map(int, numbers))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < len(text) < 5


def _interleaved(layout: str, layers: int) -> str:
    if not layers:
        raise ValueError(f"{layout}: must have at least 1 layer")
    return "af" * layers


def _sandwich(layout: str, k: int, layers: int) -> str:
    if not layers or k > layers:
        raise ValueError(f"{layout}: K must be at most the {layers} layers, and these at least 1")
    return "a" * k + "af" * (layers - k) + "f" * k


def _par(layout: str, ratio: int, layers: int) -> str:
    blocks = 2 * layers
    if not 2 <= ratio <= blocks:
        raise ValueError(f"{layout}: P must be from 2 to the {blocks} blocks of {layers} layers")
    attention, first = blocks // ratio, 2 * blocks // 3
    period = (first + first // attention) // attention
    letters = ("a" + "f" * (period - 1)) * attention
    return letters[:blocks] + "f" * (blocks - len(letters))


_RULES = {"interleaved": (_interleaved, 1), "sandwich": (_sandwich, 2), "par": (_par, 2)}
