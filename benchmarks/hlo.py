"""What a compiled program does, counted in its text: launches, bytes, FLOPs and collectives, loop by loop.

A launch is an instruction that a device runs by itself: a fusion, a custom call, a copy, a sort, a collective; one that
gives a single number runs beside the others and is none, nor is what brings the next operand onto the chip meanwhile.
Its bytes are those of its operands and outputs in the main memory, except that of a buffer of which a slice is read or
written only the slice counts, and of a kernel what its scope says, where it does. FLOPs are of products and
convolutions (a multiplication and an addition are two); a kernel of one's own (Pallas) shows none, but where its scope
tells them. Of branches the one with the most launches counts.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import re
from collections.abc import Iterator

from benchmarks.hlo_flops import flops
from benchmarks.hlo_text import BYTES, Computation, Instruction, arrays, parse, size

# Instructions that are no work, or whose work is counted where it begins.
FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id opt-barrier "
    "add-dependency".split()
)
NOTHING = re.compile(
    r"ConcatBitcast|AssumeGatherIndicesInBound"
)  # calls that only tell the compiler something
MOVES = FREE | frozenset(
    "convert copy transpose concatenate slice dynamic-slice pad reshape broadcast reverse copy-start slice-start "
    "iota bitcast-convert".split()
)
PRODUCTS = frozenset(["dot", "convolution"])
COLLECTIVES = frozenset("all-reduce all-gather reduce-scatter all-to-all collective-permute".split())
KINDS = ("product", "kernel", "move", "sort", "collective", "other")


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
        self.computations, self.entry = parse(text)
        self._counted: dict[str, Counts] = {}

    @functools.cached_property
    def total(self) -> Counts:
        """Everything, trip counts applied."""
        return self._count(self.entry)

    def loops(self) -> list[Loop]:
        """All loops that are reached, outer ones first."""
        return list(self._loops(self.entry, 1.0))

    def main_loop(self) -> Loop:
        """The loop in which most bytes are moved; of loops in one another the innermost that has nine tenths of them.

        Raises:
          ValueError: the program has no loop.
        """
        found = self.loops()
        if not found:
            raise ValueError("program: expected a loop, found none")
        most = max(loop.times * loop.body.bytes for loop in found)
        return [loop for loop in found if loop.times * loop.body.bytes >= 0.9 * most][-1]

    def _loops(self, name: str, times: float) -> Iterator[Loop]:
        for i in self.computations[name].instructions.values():
            if i.opcode == "while":
                trips, (body,) = self._trips(i), i.called("body")
                label = re.search(r'op_name="([^"]*)"', i.attributes)
                yield Loop(label[1] if label else i.name, trips, times * trips, self._count(body))
                yield from self._loops(body, times * trips)
            elif i.opcode in ("call", "conditional"):
                for inner in self._called(i):
                    yield from self._loops(inner, times)

    def _trips(self, i: Instruction) -> int:
        """How often a loop runs; 1 where nothing says it."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', i.attributes)
        if found:
            return int(found[1])
        # The TPU's compiler tells by the condition alone: the counter, from 0, is less than a constant.
        condition = self.computations[i.called("condition")[0]]
        last = condition.instructions[condition.root]
        limits = [condition.instructions[o] for o in last.operands if o in condition.instructions]
        limits = [x.literal for x in limits if x.opcode == "constant" and x.literal.isdigit()]
        return int(limits[0]) if "direction=LT" in last.attributes and limits else 1

    def _called(self, i: Instruction) -> list[str]:
        keys = dict(call=["to_apply"]).get(i.opcode)
        keys = keys or ["branch_computations", "true_computation", "false_computation"]
        return [name for key in keys for name in i.called(key)]

    def _count(self, name: str) -> Counts:
        """One run of a computation."""
        if name in self._counted:
            return self._counted[name]
        total = Counts()
        for _, counts, inner, times in self.walk(name):
            total.add(self._count(inner) if counts is None else counts, times)
        self._counted[name] = total
        return total

    def walk(self, name: str) -> Iterator[tuple[Instruction, Counts | None, str, float]]:
        """What a computation does: each launch with its counts; of a loop or a branch, in their place, the computation
        inside and how often that runs."""
        computation = self.computations[name]
        same = _unchanged(computation)
        for i in computation.instructions.values():
            if i.opcode == "while":
                yield i, None, i.called("body")[0], self._trips(i)
            elif i.opcode in ("call", "conditional"):
                yield i, None, max(self._called(i), key=lambda c: self._count(c).launches), 1.0
            elif not (i.opcode in FREE or i.opcode.endswith(("-done", "-update")) or _beside(i)):
                yield i, self._launch(computation, i, i.name in same), "", 1.0

    def _launch(self, computation: Computation, i: Instruction, same: bool) -> Counts:
        inside = self._inside(i)
        kind = self._kind(i, inside)
        shapes = [computation.instructions[o].shape for o in i.operands]
        counts = Counts(
            launches=0.0 if _prefetches(i) else 1.0, flops=sum(flops(c.instructions, j) for c, j in inside)
        )
        if kind == "collective":
            counts.collective_bytes = size(i.shape)
        if inside and inside[0][1] is not i:
            counts.bytes = self._fused_bytes(self.computations[i.called("calls")[0]])
        else:
            counts.bytes = _own_bytes(i, shapes)
            counts.flops = counts.flops or flops(computation.instructions, i)
        counts.by_kind[kind] = [counts.launches, counts.bytes]
        if same and counts.launches:
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
        total, users = 0.0, _users(fused)
        for i in fused.instructions.values():
            if i.opcode == "parameter":
                total += min(size(i.shape), self._read(fused, i.name, users))
        return total + sum(self._written(fused, name) for name in _roots(fused))

    def _read(self, fused: Computation, name: str, users) -> float:
        """Bytes that are read of a fusion's parameter, or of what is one with it."""
        if name in _roots(fused):  # as of a fusion that is but a bitcast before a product
            return math.inf
        total = 0.0
        for user in users.get(name, []):
            if user.opcode == "gather" and user.operands[0] == name:
                total += size(user.shape)
            elif user.opcode in ("dynamic-slice", "slice"):  # of which again a slice may be all that is read
                inside = self._read(fused, user.name, users) if user.name in users else math.inf
                total += min(size(user.shape), inside)
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
                continue
            elif user.opcode == "bitcast":
                total += self._read(fused, user.name, users)
            elif user.opcode == "fusion":
                inner = self.computations[user.called("calls")[0]]
                parameters = {j.literal: j for j in inner.instructions.values() if j.opcode == "parameter"}
                for at, operand in enumerate(user.operands):
                    if operand == name:
                        total += self._read(inner, parameters[str(at)].name, _users(inner))
            else:
                return math.inf
        return total

    def _written(self, fused: Computation, name: str) -> float:
        i = fused.instructions[name]
        if i.opcode == "bitcast":
            return self._written(fused, i.operands[0])
        if i.opcode == "dynamic-update-slice":
            return size(fused.instructions[i.operands[1]].shape)
        if i.opcode == "parameter":
            return 0.0
        if i.opcode == "fusion":
            inner = self.computations[i.called("calls")[0]]
            return sum(self._written(inner, root) for root in _roots(inner))
        return size(i.shape)


def _users(computation: Computation) -> dict[str, list[Instruction]]:
    """By name of an instruction those that read it."""
    users: dict[str, list[Instruction]] = {}
    for i in computation.instructions.values():
        for operand in i.operands:
            users.setdefault(operand, []).append(i)
    return users


def _roots(computation: Computation) -> list[str]:
    root = computation.instructions[computation.root]
    return list(root.operands) if root.opcode == "tuple" else [root.name]


def _own_bytes(i: Instruction, shapes: list[str]) -> float:
    """Bytes of an instruction that is no fusion."""
    if i.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * min(size(i.shape), size(shapes[0]))
    if i.opcode == "dynamic-update-slice":
        return 2 * size(shapes[1])
    if i.opcode in (
        "copy-start",
        "slice-start",
    ):  # (a copy's result, what it is of, ...), of slices the other way round
        (dtype, dims, to), (_, other, source) = itertools.islice(arrays(i.shape), 2)
        moved = BYTES[dtype] * min(math.prod(dims), math.prod(other))
        return moved * sum("S(1)" not in layout for layout in (to, source))
    if i.opcode.endswith("-start"):
        return sum(map(size, shapes))
    if moved := re.search(r"moving_(\d+)_bytes", i.attributes):  # scopes of `vargen.kernels`
        return float(moved[1])
    # Buffers that a kernel changes in place: it reads and writes at most what they hold, mostly a row; once is enough.
    aliased = re.findall(r"\{(\d+)\}: \((\d+), \{\}", i.attributes) if i.opcode == "custom-call" else []
    return size(i.shape) + sum(map(size, shapes)) - sum(size(shapes[int(at)]) for _, at in aliased)


def _beside(i: Instruction) -> bool:
    """Whether an instruction is no work of its own: a call that does nothing, or a single number."""
    if i.opcode == "custom-call":
        return bool(NOTHING.search(i.attributes))
    return i.opcode != "fusion" and all(math.prod(dims) == 1 for _, dims, _ in arrays(i.shape))


def _prefetches(i: Instruction) -> bool:
    """Whether it brings something onto the chip, where it can't stay."""
    return i.opcode in ("slice-start", "copy-start") and "S(1)" in i.shape


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
