"""How every program starts and ends: flags, one-line errors, exit codes.

Exit codes: 0 done; 2 bad input, one line and nothing computed; 75 stopped on request with
everything saved; anything else is a failure.
"""

import gc
import inspect
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging

from aejax import registry
from aejax.errors import InputError
from launch import output

_HELP = ("help", "helpshort", "h")
_WHOLE_HELP = ("help=all", "helpfull")


def is_help(word: str) -> bool:
    """Whether this word of a command line asks for help."""
    return word.startswith("-") and word.lstrip("-") in (*_HELP, *_WHOLE_HELP)


def is_whole(words: list[str]) -> bool:
    """Whether one of these words, which ask for help, asks for all that there is to say."""
    return any(word.lstrip("-") in _WHOLE_HELP for word in words)


def use_parts(values: list[str]) -> None:
    """Imports the classes that --parts names, one or several with commas between."""
    for name in ",".join(values).split(","):
        if name and ":" not in name:
            raise InputError(f"--parts={name}: must be PACKAGE:CLASS")
        if name:
            registry.use_named("--parts", name)


def help_text() -> str:
    """The main program's docstring and its flags."""
    main = sys.modules["__main__"]
    lines = [inspect.cleandoc(main.__doc__ or ""), "", "Flags:"]
    for flag in flags.FLAGS.get_key_flags_for_module(main):
        lines.append(f"  --{flag.name:<28} {flag.help}")
    return "\n".join(lines)


def run(
    main: Callable[[list[str]], int | None],
    parse: Callable[[list[str]], list[str]] = flags.FLAGS,
) -> NoReturn:
    """Parses the command line and runs `main`; ends the process with its exit code.

    Args:
        main: takes what is left of the command line, [program], and returns an exit code (None is
            0). An `InputError` from it becomes one line and exit code 2.
        parse: takes the command line and returns what is left after flags.
    """

    def parse_or_exit(argv: list[str]) -> list[str]:
        try:
            if parse is flags.FLAGS and any(is_help(word) for word in argv[1:]):
                print(help_text(), flush=True)
                sys.exit(0)
            left = parse(argv)
            if len(left) > 1:
                raise InputError(
                    f"stray word on the command line: {left[1]!r}; flags look like --name=value"
                )
            return left
        except flags.IllegalFlagValueError as error:
            fail(_in_words(error))
        except (flags.Error, InputError) as error:
            fail(error)

    def main_or_exit(argv: list[str]) -> int | None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells every file that it writes
        gc.freeze()
        gc.enable()  # `launch/__init__.py` says why it was not
        try:
            code = main(argv) or 0
        except InputError as error:
            fail(error)
        except KeyboardInterrupt:
            leave(130)
        except OSError as error:  # a full disk, a folder that went away
            print(f"failed: {error}", file=sys.stderr, flush=True)
            leave(1)
        if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
            _tell_others(code)
            return code  # the processes of a job leave together
        leave(code)

    output.outlive_terminal()
    output.leave_out_late_writes()
    app.run(main_or_exit, flags_parser=parse_or_exit)
    sys.exit(0)


def check_folder(workdir: str) -> None:
    """Refuses a folder that cannot be made or written to, before anything is read.

    Raises:
        InputError: it would lie in a file, or where this user may not write.
    """
    place = os.path.abspath(workdir)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise InputError(f"--workdir={workdir}: {place} is no folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--workdir={workdir}: the folder {place} may not be written to")


def _in_words(error: flags.IllegalFlagValueError) -> Exception:
    """The error with what the flag's type accepts."""
    match = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL)
    words = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    if match is None or match[1] not in flags.FLAGS:
        return error
    flag = flags.FLAGS[match[1]]
    kind = words.get(flag.flag_type())
    for bound, side in (("lower_bound", "at least"), ("upper_bound", "at most")):
        if kind and (limit := getattr(flag.parser, bound, None)) is not None:
            kind += f", {side} {limit}"
    return InputError(f"--{match[1]}={match[2]}: must be {kind}") if kind else error


def fail(error: Exception) -> NoReturn:
    """Prints one line and ends the process with exit code 2."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    leave(2)


def leave(code: int) -> NoReturn:
    """Ends the process with this exit code, at once.

    An ordinary exit takes JAX apart for a third of a second, and one of several processes would
    wait for the others in a barrier that they may never reach.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    _tell_others(code)
    os._exit(code)


def _tell_others(code: int) -> None:
    """Says to the other processes of a job, where there is one, that this one ends."""
    if cluster := sys.modules.get("aejax.cluster"):
        cluster.notify_exit(code)
