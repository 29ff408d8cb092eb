"""Single operations against PyTorch's and the authors' outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from vargen.interop import mapping
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close
from vargen.kernels import filter_logits
from vargen.layers import KERNEL_INIT, Mlp
from vargen.tokenizers import layers, resample


def matches(golden: Golden) -> bool:
    """Whether it is a golden of single operations."""
    return not golden.weights and any(_operation(output) for output in golden.outputs())


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    calls = {}
    for output in golden.outputs():
        found = _operation(output)
        if found and all(name in golden for name in found[1]):
            calls[output] = found

    @jax.jit
    def compute(inputs):
        return {o: f(match, golden[o].shape, *inputs[o]) for o, (match, _, f) in calls.items()}

    values = compute({o: [golden[name] for name in names] for o, (_, names, _) in calls.items()})
    for output in calls:
        yield close(output, values[output], golden[output], REPRODUCED)


def _matrix(match, shape):
    return getattr(resample, f"{match[1]}_matrix")(shape[1], shape[0])


def _resampled(match, shape, x):
    return _nchw(getattr(resample, match[1])(_nhwc(x), shape[2:]))


def _doubled(match, shape, x):
    return _nchw(layers.double(_nhwc(x)))


def _group_norm(match, shape, x, scale, bias):
    params = {"scale": scale, "bias": bias}
    return _nchw(layers.GroupNorm(int(match[1])).apply({"params": params}, _nhwc(x)))


def _activation(match, shape, x):
    """The activation of a network one unit wide whose weights are 1; silu(x) as the gate of 1."""
    kind = {"gelu_erf": "gelu", "gelu_tanh": "gelu_tanh", "silu": "swiglu"}[match[0]]

    def dense(weight, bias):
        return {"kernel": jnp.full((1, 1), weight), "bias": jnp.full(1, bias)}

    params = {"up": dense(1.0, 0.0), "down": dense(1.0, 0.0)}
    if kind == "swiglu":
        params |= {"gate": dense(1.0, 0.0), "up": dense(0.0, 1.0)}
    return Mlp(1, kind, KERNEL_INIT, KERNEL_INIT).apply({"params": params}, x[:, None])[:, 0]


def _downsampled(match, shape, x, kernel):
    # The zeros of ConvEncoder's downsampling: below and to the right.
    down = layers.conv(
        shape[1], kernel.shape[-1], stride=2, padding=[(0, 1), (0, 1)], dtype=jnp.float32, bias=False
    )
    return _nchw(down.apply({"params": {"kernel": mapping.CONV.read(kernel)}}, _nhwc(x)))


def _probabilities(match, shape, logits):
    # VAR's top_p of 0 keeps all, as LlamaGen's of 1.
    top_p = float(match[2]) or None
    return jax.nn.softmax(filter_logits(logits, int(match[1]), top_p))


def _nhwc(x):
    return x.transpose(0, 2, 3, 1)


def _nchw(x):
    return x.transpose(0, 3, 1, 2)


# By the patterns of the outputs' names: the inputs ("{}" stands for the output's own name), and the function of
# the match, the output's shape and the inputs.
OPERATIONS = {
    r"M_(area|bicubic)_\d+_\d+": ((), _matrix),
    r"(area|bicubic)_\d+_\d+": (("{}",), _resampled),
    r"nearest2x": (("{}",), _doubled),
    r"gn(\d+)_eps1e-6": (("gn_x", "gn_w", "gn_b"), _group_norm),
    r"gelu_erf|gelu_tanh|silu": (("act_x",), _activation),
    r"down_pad0101_s2": (("down_x", "down_w"), _downsampled),
    r"(?:var|llamagen)_probs_k(\d+)_p([\d.]+)": (("filter_logits",), _probabilities),
}


def _operation(output: str):
    """The match of an output's name, its inputs' names, its function; None for an output of something else."""
    name = output.removeprefix("out/")
    for pattern, (inputs, function) in OPERATIONS.items():
        if match := re.fullmatch(pattern, name):
            return match, [f"in/{i.format(name)}" for i in inputs], function
    return None
