"""The collectives of a compiled program, read from its HLO text (`compiled.as_text()`).

A dispatch is a loop over its log rows, and inside of it one over the steps up to the row; neither
length is known. What is found inside of the inner one is `in_step`; loops of known length there
multiply it.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
_BITS = re.compile(r"[a-z]+(\d+)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
_FLOATS = re.compile(r"\b(?:b?f|c)\d+\[")
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(r"([\w\-]+)=(?:%([\w.\-]+)|\{(%[^}]*)\})")
# What costs no launch of its own on an accelerator.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call"}

Groups = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """One array of a collective.

    Attributes:
        dtype: HLO's name of its type, such as f32.
        shape: on a device; of an all-gather what comes out, else what goes in.
        op_name: of the collective; in a combined one of the instruction that made this array.
    """

    dtype: str
    shape: tuple[int, ...]
    op_name: str

    @property
    def bytes(self) -> int:
        bits = _BITS.match(self.dtype)
        return math.prod(self.shape) * (int(bits[1]) if bits else 8) // 8


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective.

    Attributes:
        kind: one of KINDS.
        parts: its arrays; a combined one has several.
        groups: devices that exchange with each other; of a collective-permute source and target.
        times: how often it runs, in a step or in a dispatch.
        in_step: whether it is inside of the loop over steps.
    """

    kind: str
    parts: tuple[Part, ...]
    groups: Groups
    times: int
    in_step: bool


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    opcode: str
    result: str
    operands: str
    attributes: str

    @property
    def op_name(self) -> str:
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


def collectives(text: str, devices: int) -> list[Collective]:
    """All collectives of a module's text, compiled for so many devices."""
    found = []
    for own, instruction, times, in_step in _walk(text):
        kind = instruction.opcode.removesuffix("-start")
        if kind in KINDS:
            groups = _groups(instruction.attributes, devices)
            parts = tuple(_parts(kind, instruction, own, len(groups[0])))
            found.append(Collective(kind, parts, groups, times, in_step))
    return found


def launches(text: str) -> int:
    """Instructions that a step runs, each a kernel or a call of a library on an accelerator.

    Loops over whole numbers alone are left out: they are random keys, one kernel there.
    """
    return sum(
        times
        for own, each, times, in_step in _walk(text)
        if in_step
        and each.opcode not in _FREE
        and any(_FLOATS.search(other.result) for other in own.values())
    )


def axes_of(groups: Groups, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The axes of a mesh along which the members of a group differ.

    Args:
        groups: of devices, numbered in the mesh's order.
        sizes: {axis: devices}, in the mesh's order.
    """
    shape = tuple(sizes.values())
    differ = np.zeros(len(shape), bool)
    for group in groups:
        places = np.stack(np.unravel_index(np.asarray(group), shape))
        differ |= (places != places[:, :1]).any(axis=1)
    return tuple(name for name, each in zip(sizes, differ, strict=True) if each)


def _walk(text: str) -> Iterator[tuple[dict[str, _Instruction], _Instruction, int, bool]]:
    """(its computation, instruction, times, in_step) of all that is run, fusions as one."""
    computations, entry = _computations(text)

    def visit(name: str, times: int, loops: int):
        own = computations[name]
        for each in own.values():
            yield own, each, times, loops > 1
            inner, inside = times, loops
            if each.opcode == "while":
                known = re.search(r'known_trip_count":\{"n":"(\d+)"', each.attributes)
                inner, inside = (times * int(known[1]), loops) if known else (times, loops + 1)
            if each.opcode in ("while", "call", "conditional") or each.opcode.startswith("async"):
                for called in _called(each):
                    yield from visit(called, inner, inside)

    yield from visit(entry, 1, 0)


def _called(instruction: _Instruction) -> list[str]:
    """Computations that an instruction runs, but for a loop's condition."""
    names = []
    for key, one, several in _CALLED.findall(instruction.attributes):
        if key not in ("condition", "control-predecessors"):
            names += [one] if one else [each.strip(" %") for each in several.split(",")]
    return names


def _computations(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    """{computation: {instruction's name: instruction}}, and which is the entry."""
    computations: dict[str, dict[str, _Instruction]] = {}
    own: dict[str, _Instruction] = {}
    entry = ""
    for line in text.splitlines():
        if line[:1].strip() and (header := _HEADER.match(line)):
            own = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif line.startswith(" ") and " = " in line:
            instruction = _instruction(line.strip())
            own[instruction.name] = instruction
    return computations, entry


def _instruction(line: str) -> _Instruction:
    """One line: [ROOT] %name = type opcode(operands), attributes."""
    name, _, rest = line.removeprefix("ROOT ").partition(" = ")
    end = _closing(rest) if rest.startswith("(") else rest.index(" ") - 1
    result, rest = rest[: end + 1], rest[end + 1 :].lstrip()
    start = rest.index("(")
    end = start + _closing(rest[start:])
    return _Instruction(
        name.lstrip("%"), rest[:start], result, rest[start + 1 : end], rest[end + 1 :]
    )


def _closing(text: str) -> int:
    """Where the parenthesis that the text begins with is closed."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place
    raise ValueError(f"no closing parenthesis: {text[:80]}")


def _arrays(text: str) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (dtype, tuple(int(size.lstrip("<=")) for size in shape.split(",") if size))
        for dtype, shape in _ARRAY.findall(text)
    ]


def _parts(
    kind: str, instruction: _Instruction, own: dict[str, _Instruction], size: int
) -> Iterator[Part]:
    """The arrays that go in; those of an all-gather as they come out of `size` devices."""
    along = re.search(r"dimensions=\{(\d+)\}", instruction.attributes)
    made = [each for name in _names(instruction) for each in _joined(own[name], own)]
    for each in made:
        op_name = _op_name(each, own) if len(made) > 1 else instruction.op_name
        for dtype, shape in _arrays(each.result):
            if kind == "all-gather" and along:
                at = int(along[1])
                shape = (*shape[:at], shape[at] * size, *shape[at + 1 :])
            yield Part(dtype, shape, op_name or instruction.op_name or _op_name(each, own))


def _joined(made: _Instruction, own: dict[str, _Instruction]) -> list[_Instruction]:
    """The arrays that XLA for GPUs puts end to end into one to exchange them, or the one."""
    parts = [own[name] for name in _names(made) if name in own]
    sizes = [math.prod(shape) for part in parts for _, shape in _arrays(part.result)]
    whole = sum(math.prod(shape) for _, shape in _arrays(made.result))
    return parts if "concatenate" in made.name and sum(sizes) == whole else [made]


def _op_name(made: _Instruction, own: dict[str, _Instruction]) -> str:
    """Of the instruction, or of the nearest one before it that has a name."""
    while not made.op_name and (names := [name for name in _names(made) if name in own]):
        made = own[names[0]]
    return made.op_name


def _names(instruction: _Instruction) -> list[str]:
    return re.findall(r"%([\w.\-]+)", instruction.operands)


def _groups(attributes: str, devices: int) -> Groups:
    """The groups of a collective, in any of the forms that XLA prints."""
    if pairs := re.search(r"source_target_pairs=\{(.*?\})\}", attributes):
        return _listed(pairs[1])
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", attributes):
        return _listed(listed[1])
    if iota := re.search(r"replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)", attributes):
        shape, _, order = iota[1].partition("<=")
        return _rows(_iota(order).reshape(_numbers(shape)))
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\](.*?)\{(.*?)\}", attributes):
        return _mesh_groups(*mesh.groups())
    return (tuple(range(devices)),)


def _mesh_groups(axes: str, order: str, along: str) -> Groups:
    """mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, or {'a':(2)2}, the second half of a."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    ids = re.search(r"device_ids=\((.*)\)", order)
    named = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", along)
    shape: list[int] = []
    inside: list[int] = []
    for axis, size in sizes.items():
        # An axis of which only factors are used falls into these factors.
        used = sorted(
            (int(before or 1), int(own or size)) for name, before, own in named if name == axis
        )
        done = 1
        for before, own in used:
            shape.append(before // done)
            inside.append(len(shape))
            shape.append(own)
            done = before * own
        shape.append(size // done)
    total = math.prod(sizes.values())
    numbers = _iota(ids[1]) if ids else np.arange(total)
    outside = [at for at in range(len(shape)) if at not in inside]
    lengths = math.prod(shape[at] for at in inside)
    return _rows(numbers.reshape(shape).transpose(outside + inside).reshape(-1, lengths))


def _iota(text: str) -> np.ndarray:
    """[2,4]T(1,0): the numbers from 0 on in this shape, transposed; or a list of them."""
    shape, _, order = text.partition("T")
    if not shape.startswith("["):
        return np.asarray(_numbers(text))
    numbers = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return numbers.transpose(_numbers(order)) if order else numbers


def _numbers(text: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", text)]


def _rows(array: np.ndarray) -> Groups:
    return tuple(tuple(int(each) for each in row) for row in array)


def _listed(text: str) -> Groups:
    return tuple(tuple(_numbers(each)) for each in re.findall(r"\{([^}]*)\}", text))
