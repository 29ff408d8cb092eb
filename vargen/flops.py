"""How much work a program is, counted before it runs: FLOPs of its products."""

from __future__ import annotations

import math
import re
from typing import Any

from jax.extend import core

from vargen.kernels.step_attention.call import PAIRS


def products(jaxpr: core.Jaxpr) -> int:
    """FLOPs of a jaxpr's matrix products and convolutions (a multiplication and an addition are two).

    Loops with a known length count it, others count once, of branches the one with most. Step attention counts two
    products of the pairs that see each other, whatever computes it; other kernels (Pallas) count none, and those here
    are a branch beside one of XLA's.
    """
    total = 0
    for eqn in jaxpr.eqns:
        if (flops := of_equation(eqn)) is not None:
            total += flops
            continue
        inner = [products(j) for value in eqn.params.values() for j in jaxprs(value)]
        if inner:
            combined = max(inner) if eqn.primitive.name == "cond" else sum(inner)
            total += combined * eqn.params.get("length", 1)
    return total


def of_equation(eqn: core.JaxprEqn) -> int | None:
    """The same of one equation that is to be counted as a whole; None for others, whose inner jaxprs may count."""
    name = eqn.primitive.name
    if pairs := re.search(PAIRS.format(r"(\d+)"), str(eqn.source_info.name_stack)):
        if not name.startswith("custom_vjp_call"):
            return 0
        batch, _, heads, dim = eqn.invars[0].aval.shape
        return 4 * batch * heads * dim * int(pairs[1])
    if name == "pallas_call":
        return 0
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return 2 * eqn.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval
        out_features = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2 * eqn.outvars[0].aval.size * kernel.size // out_features
    return None


def jaxprs(value: Any) -> list:
    """Those that a parameter of an equation holds."""
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    return [j for v in value for j in jaxprs(v)] if isinstance(value, (tuple, list)) else []
