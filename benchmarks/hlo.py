"""What a compiled program does, counted in its text: launches, bytes, FLOPs and collectives, loop by loop.

A launch is an instruction that a device runs by itself: a fusion, a custom call, a copy, a sort, a collective. Its
bytes are those of its operands and outputs in the main memory, except that of a buffer of which a slice is read or
written only the slice counts. FLOPs are of products and convolutions (a multiplication and an addition are two); a
kernel of one's own (Pallas) shows none. Of branches the one with the most launches counts.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Iterator

BYTES = dict(pred=1, s4=0.5, u4=0.5, token=0) | {
    name: int(re.sub(r"\D", "", name.split("e")[0])) / 8
    for name in "s8 u8 s16 u16 s32 u32 s64 u64 f16 bf16 f32 f64 c64 c128 f8e4m3fn f8e5m2 f8e4m3 f8e3m4".split()
}
# Instructions that are no work, or whose work is counted where it begins.
FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id opt-barrier "
    "add-dependency".split()
)
MOVES = FREE | frozenset(
    "convert copy transpose concatenate slice dynamic-slice pad reshape broadcast reverse copy-start slice-start "
    "iota bitcast-convert".split()
)
PRODUCTS = frozenset(["dot", "convolution"])
COLLECTIVES = frozenset("all-reduce all-gather reduce-scatter all-to-all collective-permute".split())
KINDS = ("product", "kernel", "move", "sort", "collective", "other")

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


@dataclasses.dataclass
class Counts:
    """What is run, of one iteration of a loop or of all.

    Attributes:
      launches, bytes, flops: in all; the collectives' bytes are those of their outputs.
      by_kind: launches and bytes of each of `KINDS`.
      unchanged: launches and bytes whose operands are the same in every iteration of the loop around them.
      seconds: under `Device`, the sum over launches of the longest of their bytes, FLOPs and the launch.
    """

    launches: float = 0.0
    bytes: float = 0.0
    flops: float = 0.0
    collective_bytes: float = 0.0
    by_kind: dict[str, list[float]] = dataclasses.field(
        default_factory=lambda: {kind: [0.0, 0.0] for kind in KINDS}
    )
    unchanged: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0])
    seconds: float = 0.0

    def add(self, other: Counts, times: float = 1.0) -> None:
        """Adds another's, so many times."""
        for name in ("launches", "bytes", "flops", "collective_bytes", "seconds"):
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        mine, theirs = ([*c.by_kind.values(), c.unchanged] for c in (self, other))
        for a, b in zip(mine, theirs, strict=True):
            a[:] = [x + times * y for x, y in zip(a, b, strict=True)]


@dataclasses.dataclass(frozen=True)
class Device:
    """What a device does at best, by its data sheet.

    Attributes:
      flops: FLOP/s of products in bfloat16.
      bytes: bytes/s of its main memory.
      launch: seconds that a launch takes at least.
      links: bytes/s in and out of it, of collectives.
    """

    flops: float
    bytes: float
    launch: float
    links: float

    def overlapped(self, counts: Counts) -> float:
        """Seconds, were everything that a program does at work at once: the longest of its parts."""
        return max(
            counts.flops / self.flops,
            counts.bytes / self.bytes,
            self.launch * counts.launches,
            counts.collective_bytes / self.links,
        )


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop of the program: how often it runs (in all its surroundings), and one iteration of it.

    Attributes:
      name: of the instruction, by the source that it came from.
      trips: iterations, once; 1 where the program doesn't say.
      times: iterations in all.
      body: `Counts` of one iteration, loops inside it with all theirs.
    """

    name: str
    trips: int
    times: float
    body: Counts


class Program:
    """A compiled program, read from `compiled.as_text()`.

    Args:
      text: the HLO.
      device: by which seconds are told; None for none.
    """

    def __init__(self, text: str, device: Device | None = None):
        self.device = device
        self.computations, self.entry = _parse(text)
        self._counted: dict[str, Counts] = {}

    @functools.cached_property
    def total(self) -> Counts:
        """Everything, trip counts applied."""
        return self._count(self.entry)

    def loops(self) -> list[Loop]:
        """All loops that are reached, outer ones first."""
        return list(self._loops(self.entry, 1.0))

    def main_loop(self) -> Loop:
        """The loop in which most bytes are moved.

        Raises:
          ValueError: the program has no loop.
        """
        found = self.loops()
        if not found:
            raise ValueError("program: expected a loop, found none")
        return max(found, key=lambda loop: loop.times * loop.body.bytes)

    def _loops(self, name: str, times: float) -> Iterator[Loop]:
        for i in self.computations[name].instructions.values():
            if i.opcode == "while":
                trips, (body,) = _trips(i), i.called("body")
                label = re.search(r'op_name="([^"]*)"', i.attributes)
                yield Loop(label[1] if label else i.name, trips, times * trips, self._count(body))
                yield from self._loops(body, times * trips)
            elif i.opcode in ("call", "conditional"):
                for inner in self._called(i):
                    yield from self._loops(inner, times)

    def _called(self, i: Instruction) -> list[str]:
        keys = dict(call=["to_apply"]).get(i.opcode)
        keys = keys or ["branch_computations", "true_computation", "false_computation"]
        return [name for key in keys for name in i.called(key)]

    def _count(self, name: str) -> Counts:
        """One run of a computation."""
        if name in self._counted:
            return self._counted[name]
        computation, total = self.computations[name], Counts()
        same = _unchanged(computation)
        for i in computation.instructions.values():
            if i.opcode == "while":
                total.add(self._count(i.called("body")[0]), _trips(i))
            elif i.opcode in ("call", "conditional"):
                total.add(max((self._count(c) for c in self._called(i)), key=lambda c: c.launches))
            elif i.opcode not in FREE and not i.opcode.endswith(("-done", "-update")):
                total.add(self._launch(computation, i, i.name in same))
        self._counted[name] = total
        return total

    def _launch(self, computation: Computation, i: Instruction, same: bool) -> Counts:
        inside = self._inside(i)
        kind = self._kind(i, inside)
        shapes = [computation.instructions[o].shape for o in i.operands]
        counts = Counts(launches=1.0, flops=sum(_flops(c.instructions, j) for c, j in inside))
        if kind == "collective":
            counts.collective_bytes = _size(i.shape)
        if inside and inside[0][1] is not i:
            counts.bytes = self._fused_bytes(self.computations[i.called("calls")[0]])
        else:
            counts.bytes = _own_bytes(i, shapes)
            counts.flops = counts.flops or _flops(computation.instructions, i)
        counts.by_kind[kind] = [1.0, counts.bytes]
        if same:
            counts.unchanged = [1.0, counts.bytes]
        if self.device is not None:
            counts.seconds = self.device.overlapped(counts)
        return counts

    def _inside(self, i: Instruction) -> list[tuple[Computation, Instruction]]:
        """The instructions that a fusion holds, those of fusions in it too; for others it alone."""
        if i.opcode not in ("fusion", "async-start"):
            return []
        found = []
        for name in i.called("calls"):
            computation = self.computations[name]
            for j in computation.instructions.values():
                found += self._inside(j) if j.opcode == "fusion" else [(computation, j)]
        return found

    def _kind(self, i: Instruction, inside) -> str:
        opcodes = {j.opcode for _, j in inside} or {i.opcode}
        target = re.search(r'custom_call_target="([^"]*)"', i.attributes)
        if any(o.removesuffix("-start") in COLLECTIVES for o in opcodes):
            return "collective"
        if opcodes & PRODUCTS or (target and re.search(r"gemm|matmul|conv", target[1])):
            return "product"
        if target and "TopK" not in target[1]:
            return "kernel"
        if "sort" in opcodes or target:
            return "sort"
        return "move" if opcodes <= MOVES else "other"

    def _fused_bytes(self, fused: Computation) -> float:
        """Operands and outputs of a fusion; of buffers of which slices are read or written the slices alone."""
        users: dict[str, list[Instruction]] = {}
        for i in fused.instructions.values():
            for operand in i.operands:
                users.setdefault(operand, []).append(i)
        total = 0.0
        for i in fused.instructions.values():
            if i.opcode == "parameter":
                total += min(_size(i.shape), self._read(fused, i.name, users))
        return total + sum(self._written(fused, name) for name in _roots(fused))

    def _read(self, fused: Computation, name: str, users) -> float:
        """Bytes that are read of a fusion's parameter."""
        total = 0.0
        for user in users.get(name, []):
            if user.opcode in ("dynamic-slice", "slice") or (
                user.opcode == "gather" and user.operands[0] == name
            ):
                total += _size(user.shape)
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
                continue
            elif user.opcode == "bitcast":
                total += self._read(fused, user.name, users)
            elif user.opcode == "fusion":
                inner = self.computations[user.called("calls")[0]]
                inner_users: dict[str, list[Instruction]] = {}
                for j in inner.instructions.values():
                    for operand in j.operands:
                        inner_users.setdefault(operand, []).append(j)
                parameters = {j.literal: j for j in inner.instructions.values() if j.opcode == "parameter"}
                for at, operand in enumerate(user.operands):
                    if operand == name:
                        total += self._read(inner, parameters[str(at)].name, inner_users)
            else:
                return math.inf
        return total

    def _written(self, fused: Computation, name: str) -> float:
        i = fused.instructions[name]
        if i.opcode == "bitcast":
            return self._written(fused, i.operands[0])
        if i.opcode == "dynamic-update-slice":
            return _size(fused.instructions[i.operands[1]].shape)
        if i.opcode == "parameter":
            return 0.0
        if i.opcode == "fusion":
            inner = self.computations[i.called("calls")[0]]
            return sum(self._written(inner, root) for root in _roots(inner))
        return _size(i.shape)


def _parse(text: str) -> tuple[dict[str, Computation], str]:
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


def _arrays(shape: str) -> Iterator[tuple[str, list[int], str]]:
    for dtype, dims, layout in _ARRAY.findall(shape):
        if dtype in BYTES:
            yield dtype, [int(d) for d in dims.split(",") if d], layout


def _size(shape: str) -> float:
    """Bytes of a shape in main memory: what the compiler keeps on the chip (memory space 1) is none."""
    return sum(
        BYTES[dtype] * math.prod(dims) for dtype, dims, layout in _arrays(shape) if "S(1)" not in layout
    )


def _roots(computation: Computation) -> list[str]:
    root = computation.instructions[computation.root]
    return list(root.operands) if root.opcode == "tuple" else [root.name]


def _own_bytes(i: Instruction, shapes: list[str]) -> float:
    """Bytes of an instruction that is no fusion."""
    if i.opcode in ("dynamic-slice", "slice", "gather", "slice-start"):
        return 2 * min(_size(i.shape), _size(shapes[0]))
    if i.opcode == "dynamic-update-slice":
        return 2 * _size(shapes[1])
    if i.opcode == "copy-start":
        return 2 * _size(shapes[0])
    if i.opcode.endswith("-start"):
        return sum(map(_size, shapes))
    # Buffers that a kernel changes in place: it reads and writes at most what they hold, mostly a row; once is enough.
    aliased = re.findall(r"\{(\d+)\}: \((\d+), \{\}", i.attributes) if i.opcode == "custom-call" else []
    return _size(i.shape) + sum(map(_size, shapes)) - sum(_size(shapes[int(at)]) for _, at in aliased)


def _flops(instructions: dict[str, Instruction], i: Instruction) -> float:
    """Of a product or a convolution, also as a call into a library."""
    target = re.search(r'custom_call_target="([^"]*)"', i.attributes)
    if i.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.attributes)[1]
        axes = [int(x) for x in contracted.split(",") if x]
    elif target and re.search(r"gemm|matmul", target[1]):
        found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', i.attributes)
        axes = [int(x) for x in re.findall(r"\d+", found[1])] if found else []
    elif i.opcode == "convolution" or (target and "conv" in target[1]):
        (_, kernel, _), (_, out, _) = (next(_arrays(s)) for s in (instructions[i.operands[1]].shape, i.shape))
        labels = re.search(r"dim_labels=[\w?]+_([\w?]+)->", i.attributes)[1]
        return 2.0 * math.prod(out) * math.prod(kernel) / kernel[labels.index("o")]
    else:
        return 0.0
    (_, lhs, _), (_, out, _) = next(_arrays(instructions[i.operands[0]].shape)), next(_arrays(i.shape))
    return 2.0 * math.prod(out) * math.prod(lhs[a] for a in axes)


def _trips(i: Instruction) -> int:
    """How often a loop runs; 1 where the compiler doesn't know."""
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', i.attributes)
    return int(found[1]) if found else 1


def _unchanged(computation: Computation) -> set[str]:
    """Names of a loop body's instructions that give the same in every iteration."""
    parameters = [i.name for i in computation.instructions.values() if i.opcode == "parameter"]
    root = computation.instructions[computation.root]
    same: set[str] = set()
    if len(parameters) != 1 or root.opcode != "tuple":
        return same
    for i in computation.instructions.values():
        if i.opcode == "get-tuple-element" and i.operands[0] == parameters[0]:
            at = int(re.search(r"index=(\d+)", i.attributes)[1])
            passed = computation.instructions[root.operands[at]]
            if passed.opcode == "get-tuple-element" and passed.operands == i.operands:
                if f"index={at}" == re.search(r"index=\d+", passed.attributes)[0]:
                    same.add(i.name)
        elif i.opcode == "constant" or (
            i.operands and i.opcode != "parameter" and all(o in same for o in i.operands)
        ):
            same.add(i.name)
    return same


def summary(counts: Counts) -> dict[str, float | dict]:
    """For a results file: megabytes, gigaflops, and the kinds that there are."""
    kinds = {kind: dict(launches=n, mbytes=b / 1e6) for kind, (n, b) in counts.by_kind.items() if n}
    return dict(
        launches=counts.launches,
        mbytes=counts.bytes / 1e6,
        gflop=counts.flops / 1e9,
        **(dict(collective_mbytes=counts.collective_bytes / 1e6) if counts.collective_bytes else {}),
        unchanged=dict(launches=counts.unchanged[0], mbytes=counts.unchanged[1] / 1e6),
        by_kind=kinds,
    )


def main() -> None:
    """Prints the counts of a program's text, for a look at one."""
    import sys

    program = Program(open(sys.argv[1]).read())
    print(json.dumps(summary(program.total), indent=1))
    for loop in program.loops():
        print(loop.name, loop.trips, loop.times, json.dumps(summary(loop.body), indent=1))


if __name__ == "__main__":
    main()
