"""The one error that a user, not a programmer, can mend, and checks that many settings need."""

import difflib
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Bad input: a flag, a setting, data or a checkpoint.

    Its text is one line that names the setting, its value and what would be accepted. Programs
    in `launch` print it and exit with code 2, before anything has been computed.
    """


def near(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for a close name among `known`, else ''."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def check_least(name: str, value: float, least: float) -> None:
    """Raises ValueError where a setting is below what it must be at least."""
    if not value >= least:
        raise ValueError(f"{name}={value}: must be at least {least}")


def check_choice(name: str, value: Any, accepted: Iterable[Any]) -> None:
    """Raises ValueError where a setting is none of those that are accepted."""
    if value not in (accepted := tuple(accepted)):
        raise ValueError(f"{name}={value}: must be {' or '.join(map(str, accepted))}")
