"""What a program must read and multiply at least: its jaxpr walked, with whatever is known of each array."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

from vargen.flops import jaxprs, of_equation

# What gives the same numbers, or some of them, in another form or at another place.
MOVES = {
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "dynamic_slice",
    "expand_dims",
    "reshape",
    "rev",
    "slice",
    "split",
    "squeeze",
    "transpose",
}
JOINS = {"concatenate", "dynamic_update_slice", "gather", "pad", "scatter"}


class Loop(NamedTuple):
    """A loop, and how often it runs."""

    name: Any
    length: int


CONTENTS = Loop("contents", 1)  # as if it were a loop: what depends on it isn't known before the first step
NONE: frozenset[Loop] = frozenset()


class Value(NamedTuple):
    """What is known of an array.

    Attributes:
      weight: the parameter, or several, of which it is a part; None for what is computed.
      varies: the loops in whose iterations it differs.
      waits: those of them on whose iterations before it depends; and `CONTENTS`.
      made: how many of its numbers are of products.
      cached: how many of its numbers are of earlier steps.
    """

    weight: str | None = None
    varies: frozenset[Loop] = NONE
    waits: frozenset[Loop] = NONE
    made: int = 0
    cached: int = 0


@dataclasses.dataclass
class Count:
    """FLOPs, and numbers that are read, by the part of the program.

    Attributes:
      flops: of all products.
      numbers: but those of `ahead`.
      ahead: of the parameters of products that can be made before the first step, by name.
    """

    flops: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    numbers: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    ahead: dict[str, dict[str, int]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(dict)
    )

    def add(self, other: Count) -> None:
        """Adds another's; the parameters of `ahead` are read once for both."""
        self.flops.update(other.flops)
        self.numbers.update(other.numbers)
        for part, weights in other.ahead.items():
            for name, numbers in weights.items():
                self.ahead[part][name] = max(numbers, self.ahead[part].get(name, 0))


class Walk:
    """Walks a jaxpr and counts FLOPs of products, and what they read; by parameters, or of what such products gave.

    A product reads its weights anew whenever it has to wait for what the iteration before gave; once for all iterations
    else. What products gave ahead of a loop for each of its iterations, or ahead of the first step, and what the cache
    holds is read where something that waits takes it.

    Args:
      parts: name of a part -> what the scopes of its equations match; None for the first, which is everything else.
    """

    def __init__(self, parts: dict[str, str | None]):
        self.parts = parts
        self.loops = 0

    def run(
        self, jaxpr: core.Jaxpr, values: Sequence[Value], count: Count, around: tuple[Loop, ...], part: str
    ) -> list[Value]:
        """Values of the results, by those of the arguments (constants are none); what is done goes to `count`.

        Args:
          jaxpr: to walk.
          values: of its arguments.
          count: is added to.
          around: the loops that it is in.
          part: the part that it is of.
        """
        known = dict(zip(jaxpr.invars, values, strict=True))

        def value(x) -> Value:
            return Value() if isinstance(x, core.Literal) else known.get(x, Value())

        for eqn in jaxpr.eqns:
            found = self._equation(eqn, [value(x) for x in eqn.invars], count, around, part)
            known.update(zip(eqn.outvars, found, strict=True))
        return [value(x) for x in jaxpr.outvars]

    def steps(self, jaxpr: core.Jaxpr, cached: Sequence[bool], names: Sequence[str]) -> list[Count]:
        """What each step of a program does, the first also what its results need of what comes before.

        Args:
          jaxpr: of the program, whose arguments are what a step changes, then parameters, then others. Steps are
            equations of the jitted functions `step` and, of what isn't counted, `skipped`.
          cached: of what a step changes, which arrays are caches.
          names: of the parameters.
        """

        def left(arrays):
            values = [x.aval.size * held for x, held in zip(arrays, cached, strict=False)]
            return [Value(waits=frozenset([CONTENTS]), cached=n) for n in values]

        arguments = [*left(jaxpr.invars), *(Value(weight=name) for name in names)]
        known, first, found = dict(zip(jaxpr.invars, arguments, strict=False)), Count(), []
        for eqn in needed(jaxpr):
            name, count = eqn.params.get("name"), first
            if name == "step":
                found.append(count := Count())
            results = left(eqn.outvars)
            if name != "skipped":
                values = [
                    Value() if isinstance(x, core.Literal) else known.get(x, Value()) for x in eqn.invars
                ]
                made = self._equation(eqn, values, count, (), next(iter(self.parts)))
                results = results if name == "step" else made
            known.update(zip(eqn.outvars, results, strict=True))
        found[0].add(first)
        return found

    def _equation(self, eqn, values: list[Value], count: Count, around, part: str) -> list[Value]:
        stack, name = str(eqn.source_info.name_stack), eqn.primitive.name
        part = next((p for p, scope in self.parts.items() if scope and re.search(scope, stack)), part)
        flops = of_equation(eqn)
        inner = [j for x in eqn.params.values() for j in jaxprs(x)] if flops is None else []
        if name in ("scan", "while"):
            return self._loop(eqn, values, count, around, part)
        if name == "cond":
            tried = [(Count(), branch) for branch in inner]
            results = [self.run(branch, values[1:], c, around, part) for c, branch in tried]
            count.add(max((c for c, _ in tried), key=lambda c: c.flops.total()))
            return [_either(*of) for of in zip(*results, strict=True)]
        if name == "optimization_barrier":
            return values
        if len(inner) == 1 and len(inner[0].invars) == len(values):
            return self.run(inner[0], values, count, around, part)
        varies = NONE.union(*(v.varies for v in values))
        waits = NONE.union(*(v.waits for v in values))
        # Codes aren't what products gave, though they follow from it.
        made = sum(v.made for v in values)
        found = [
            Value(None, varies, waits, min(made, out.aval.size) if _is_float(out) else 0)
            for out in eqn.outvars
        ]
        if name in MOVES | JOINS:
            cached = sum(v.cached for v in values)
            weight = values[0].weight if name in MOVES else None
            if name == "concatenate" and all(v.weight for v in values):
                weight = " ".join(v.weight for v in values if v.weight)
            return [
                v._replace(weight=weight, cached=min(cached, out.aval.size))
                for v, out in zip(found, eqn.outvars, strict=True)
            ]
        for v in values:
            ahead = waits - v.waits
            read = v.cached + (v.made if CONTENTS in ahead or ahead & v.varies else 0)
            count.numbers[part] += read * _times(around)
        if not flops or not any(v.weight or v.made or v.cached for v in values):
            return found
        count.flops[part] += flops * _times(varies)
        for x, v in zip(eqn.invars, values, strict=True):
            if v.weight is not None:
                numbers = x.aval.size * _times(waits | v.varies)
                if CONTENTS in waits:
                    count.numbers[part] += numbers
                else:
                    count.add(Count(ahead={part: {v.weight: numbers}}))
        return [Value(None, varies, waits, out.aval.size) for out in eqn.outvars]

    def _loop(self, eqn, values: list[Value], count: Count, around, part: str) -> list[Value]:
        """A scan; a loop of unknown length is one of a single iteration."""
        if eqn.primitive.name == "scan":
            body, length = eqn.params["jaxpr"].jaxpr, eqn.params["length"]
            consts, carried = eqn.params["num_consts"], eqn.params["num_carry"]
        else:
            body, length = eqn.params["body_jaxpr"].jaxpr, 1
            consts = eqn.params["body_nconsts"]
            values = values[eqn.params["cond_nconsts"] :]
            carried = len(values) - consts
        self.loops += 1
        loop = Loop(self.loops, length)
        here = frozenset([loop])
        carry, each = values[consts : consts + carried], values[consts + carried :]
        each = [
            v._replace(varies=v.varies | here, made=v.made // length, cached=v.cached // length) for v in each
        ]
        before = body.invars[consts : consts + carried]
        for i, (a, b) in enumerate(zip(before, body.outvars[:carried], strict=True)):
            if a is not b:
                # A whole number alone only counts the iterations.
                counts = not a.aval.shape and not _is_float(a)
                carry[i] = carry[i]._replace(
                    weight=None,
                    varies=carry[i].varies | here,
                    waits=carry[i].waits | (NONE if counts else here),
                )
        while True:
            inside = [*values[:consts], *carry, *each]
            found = self.run(body, inside, Count(), (*around, loop), part)
            after = [
                _either(a, b)._replace(made=x.aval.size if b.made > a.made else a.made, cached=a.cached)
                for x, a, b in zip(before, carry, found, strict=False)
            ]
            if after == carry:
                break
            carry = after
        found = self.run(body, inside, count, (*around, loop), part)
        stacked = [v._replace(made=v.made * length, cached=v.cached * length) for v in found[carried:]]
        return [
            v._replace(weight=None, varies=v.varies - here, waits=v.waits - here)
            for v in (*found[:carried], *stacked)
        ]


def needed(jaxpr: core.Jaxpr) -> list[core.JaxprEqn]:
    """The equations that its results need."""
    found, wanted = [], {x for x in jaxpr.outvars if not isinstance(x, core.Literal)}
    for eqn in reversed(jaxpr.eqns):
        if not wanted.isdisjoint(eqn.outvars):
            found.append(eqn)
            wanted.update(x for x in eqn.invars if not isinstance(x, core.Literal))
    return found[::-1]


def _either(*values: Value) -> Value:
    """What is known of an array that is one of these."""
    return Value(
        values[0].weight,
        NONE.union(*(v.varies for v in values)),
        NONE.union(*(v.waits for v in values)),
        max(v.made for v in values),
        max(v.cached for v in values),
    )


def _is_float(x) -> bool:
    return jnp.issubdtype(x.aval.dtype, jnp.inexact)


def _times(loops) -> int:
    return math.prod(loop.length for loop in loops)
