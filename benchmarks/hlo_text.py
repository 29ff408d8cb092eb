"""Compiled programs as the compilers write them: `compiled.as_text()`, read into instructions."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

BYTES = dict(pred=1, s4=0.5, u4=0.5, token=0) | {
    name: int(re.sub(r"\D", "", name.split("e")[0])) / 8
    for name in "s8 u8 s16 u16 s32 u32 s64 u64 f16 bf16 f32 f64 c64 c128 f8e4m3fn f8e5m2 f8e4m3 f8e3m4".split()
}
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*)$")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `name = shape opcode(operands), attributes`."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    literal: str

    def called(self, key: str) -> list[str]:
        """Names of the computations that an attribute names."""
        found = re.search(rf"\b{key}=(\{{[^}}]*\}}|%[\w.-]+)", self.attributes)
        return re.findall(r"%([\w.-]+)", found[1]) if found else []


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in the order in which they run, by name, and the last one's name."""

    instructions: dict[str, Instruction]
    root: str


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """All computations by name, and the entry's name."""
    computations, entry, name = {}, "", ""
    instructions: dict[str, Instruction] = {}
    root = ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            name, instructions, root = head[2], {}, ""
            entry = name if head[1] else entry
        elif line.startswith("}"):
            computations[name] = Computation(instructions, root)
        elif name and (found := _LINE.match(line)):
            i = _instruction(found[2], found[3])
            instructions[i.name] = i
            root = i.name if found[1] else root
    return computations, entry


def _instruction(name: str, rest: str) -> Instruction:
    shape, rest = _balanced(rest) if rest.startswith("(") else rest.split(" ", 1)
    opcode, rest = rest.strip().split("(", 1)
    inside, attributes = _balanced("(" + rest)
    return Instruction(
        name, shape, opcode, tuple(re.findall(r"%([\w.-]+)", inside)), attributes, inside[1:-1].strip()
    )


def _balanced(text: str) -> tuple[str, str]:
    """The parenthesis that a text begins with, and the rest."""
    depth = 0
    for at, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return text[: at + 1], text[at + 1 :]
    raise ValueError(f"program: expected balanced parentheses, found {text[:60]!r}")


def arrays(shape: str) -> Iterator[tuple[str, list[int], str]]:
    for dtype, dims, layout in _ARRAY.findall(shape):
        if dtype in BYTES:
            yield dtype, [int(d) for d in dims.split(",") if d], layout


def size(shape: str) -> float:
    """Bytes of a shape in main memory: what the compiler keeps on the chip (memory space 1) is none."""
    return sum(
        BYTES[dtype] * math.prod(dims) for dtype, dims, layout in arrays(shape) if "S(1)" not in layout
    )
