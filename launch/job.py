"""What a scheduler is to run, and the templates that its own words for it come from."""

import math
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aejax.errors import InputError

if TYPE_CHECKING:
    import jinja2

# Programs that take one of several processes' part.
SEVERAL = ("train",)
# How long the processes of a job wait for one another: an image may have to be pulled first.
CONNECT_SECONDS = 600
# Of an indexed Job of Kubernetes.
MOST_PROCESSES = 100_000
# An image as registries and container runtimes take it: HOST:PORT/PATH:TAG@DIGEST.
_HOST = r"(?:[A-Za-z0-9](?:[-.A-Za-z0-9]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_PATH = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_IMAGE = (
    rf"(?:{_HOST}/)?{_PATH}(?:/{_PATH})*(?::[A-Za-z0-9_][-.A-Za-z0-9_]{{0,127}})?"
    r"(?:@[A-Za-z0-9]+(?:[-_+.][A-Za-z0-9]+)*:[0-9A-Fa-f]{32,})?"
)
_NAME = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_CLAIM = rf"{_NAME}(?:\.{_NAME})*"
_UNITS = {"": 1, "K": 2**-10, "M": 1, "G": 2**10, "T": 2**20}


@dataclass(frozen=True)
class Job:
    """A program with its flags, and what it runs on.

    Attributes:
        name: of the job.
        program: a program of aejax.
        words: its flags.
        nodes: how many machines.
        tasks: processes on each of them.
        gpus: of each node.
        cpus: cores of each process; None for what the scheduler gives.
        memory: of each node, as "64G"; None likewise.
        runs: tasks of an array: the runs of a sweep, or workers; 0 for other programs.
        shared: whether they are workers, which share the runs of a sweep or a search; else each
            task has the run of its number.
        at_once: how many of them run at a time; None for all.
        stop_seconds: how long saving may take.
        setup: lines of shell before the program starts.
        image: of the container; "" for none.
        volumes: claims and where each is mounted; the first has relative paths.
        queue: of Kueue; "" for none.
        restarts: how often a job that failed is started again.
        accelerator: the kind of the GPUs.
    """

    name: str
    program: str
    words: tuple[str, ...]
    nodes: int = 1
    tasks: int = 1
    gpus: int = 0
    cpus: int | None = None
    memory: str | None = None
    runs: int = 0
    shared: bool = False
    at_once: int | None = None
    stop_seconds: int = 120
    setup: tuple[str, ...] = ()
    image: str = ""
    volumes: tuple[tuple[str, str], ...] = ()
    queue: str = ""
    restarts: int = 3
    accelerator: str = ""

    @property
    def processes(self) -> int:
        """How many processes run at a time, but for an array."""
        return self.nodes * self.tasks


def check_name(name: str, most: int) -> None:
    """Raises InputError for a name that is no part of a host's name, or longer than `most`."""
    if len(name) > most or not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name):
        raise InputError(
            f"--name={shown(name)}: must be small letters, digits and -, from a letter to a"
            f" letter or digit, at most {most} of them"
        )


def check_image(image: str) -> None:
    """Raises InputError for what is no reference of an image."""
    if not re.fullmatch(_IMAGE, image):
        raise InputError(
            f"--image={shown(image)}: must be an image, as registry.example.org/team/aejax:0.1"
        )


def check_queue(queue: str) -> None:
    """Raises InputError for what is no name of a queue that a label can hold."""
    if len(queue) > 63 or not re.fullmatch(_CLAIM, queue):
        raise InputError(
            f"--queue={shown(queue)}: must be small letters, digits, - and ., from a letter or"
            " digit to a letter or digit, at most 63 of them"
        )


def volume(text: str) -> tuple[str, str]:
    """CLAIM and PATH of CLAIM:/PATH.

    Raises:
        InputError: it is none, or its path is the container's own root.
    """
    claim, _, path = text.partition(":")
    named = len(claim) <= 253 and re.fullmatch(_CLAIM, claim)
    if not named or not path.startswith("/") or ":" in path or not path.isprintable():
        raise InputError(f"--volume={shown(text)}: must be CLAIM:/PATH, as runs:/shared")
    if posixpath.normpath(path).strip("/") == "":
        raise InputError(f"--volume={text}: the image lies at /; must be another path")
    return claim, path


def check_volumes(job: Job) -> None:
    """Raises InputError where two things would be mounted at one path."""
    taken = {"/dev/shm": "the memory that GPUs share"} if job.gpus else {}  # noqa: S108
    for claim, path in job.volumes:
        place = posixpath.normpath(f"/{path.strip('/')}")
        if place in taken:
            raise InputError(
                f"--volume={claim}:{path}: {place} has {taken[place]} already; must be another path"
            )
        taken[place] = f"the volume {claim}"


def shown(text: str) -> str:
    """A value for a message of one line: as it is, or quoted where it has control characters."""
    return text if text.isprintable() else repr(text)


def mebibytes(memory: str) -> int:
    """How many MiB "64G" is, in Slurm's words: a number of M where no unit is given.

    Raises:
        InputError: it is none.
    """
    match = re.fullmatch("([1-9][0-9]*)([KMGT]?)", memory)
    if match is None:
        raise InputError(
            f"--memory={shown(memory)}: must be a number with K, M, G or T, such as 64G"
        )
    return math.ceil(int(match[1]) * _UNITS[match[2]])


def quoted(text: str) -> str:
    """A string of YAML in double quotes; what is not plain ASCII is escaped."""
    plain = (each if " " <= each <= "~" and each not in '"\\' else _escaped(each) for each in text)
    return f'"{"".join(plain)}"'


def _escaped(character: str) -> str:
    return f"\\{character}" if character in '"\\' else f"\\U{ord(character):08x}"


def render(template: str, **values: Any) -> str:
    """A template below `launch/` with its values filled in."""
    return _templates().get_template(template).render(**values)


def _templates() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701
    )
    environment.filters["quoted"] = quoted
    return environment
