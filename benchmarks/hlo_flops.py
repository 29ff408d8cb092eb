"""FLOPs of an instruction of a compiled program, from the text: those of products and convolutions."""

from __future__ import annotations

import math
import re

import numpy as np

from benchmarks.hlo_text import Instruction, arrays


def flops(instructions: dict[str, Instruction], i: Instruction) -> float:
    """Of a product or a convolution, also as a call into a library; of a kernel what its scope says."""
    target = re.search(r'custom_call_target="([^"]*)"', i.attributes)
    if told := re.search(r"product_of_(\d+)_flops", i.attributes):
        return float(told[1]) if target else 0.0
    if i.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.attributes)[1]
        axes = [int(x) for x in contracted.split(",") if x]
    elif target and re.search(r"gemm|matmul", target[1]):
        found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', i.attributes)
        axes = [int(x) for x in re.findall(r"\d+", found[1])] if found else []
    elif i.opcode == "convolution" or (target and "conv" in target[1]):
        shapes = *(instructions[name].shape for name in i.operands[:2]), i.shape
        found = re.search(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)", i.attributes)
        image, kernel, out = (
            dict(zip(labels, next(arrays(shape))[1], strict=True))
            for labels, shape in zip(found.groups(), shapes, strict=True)
        )
        return 2.0 * out["b"] * out["f"] * kernel["i"] * _taps(i.attributes, image, kernel, out)
    else:
        return 0.0
    (_, lhs, _), (_, out, _) = next(arrays(instructions[i.operands[0]].shape)), next(arrays(i.shape))
    return 2.0 * math.prod(out) * math.prod(lhs[a] for a in axes)


def _taps(attributes: str, image: dict, kernel: dict, out: dict) -> int:
    """How often a tap of a convolution's kernel lies on a pixel, not on padding: sizes by the axes' labels.

    The TPU's compiler writes products with several axes as convolutions over little else than padding.
    """
    window, taps = re.search(r"window=\{([^}]*)\}", attributes), 1
    options = dict(re.findall(r"(\w+)=(\S+)", window[1])) if window else {}
    for d, axis in enumerate(sorted(label for label in out if label.isdigit())):
        stride, pad, spread, step = (
            int(options[name].split("x")[d].split("_")[0]) if name in options else default
            for name, default in (("stride", 1), ("pad", 0), ("lhs_dilate", 1), ("rhs_dilate", 1))
        )
        at = stride * np.arange(out[axis])[:, None] + step * np.arange(kernel[axis]) - pad
        taps *= int(np.sum((at >= 0) & (at <= spread * (image[axis] - 1)) & (at % spread == 0)))
    return taps
