"""Weights of FID's Inception-v3 (`vargen.evaluation.inception`): the usual PyTorch port's file
(pt_inception-2015-12-05-6726825d.pth, of mseitzer/pytorch-fid and toshas/torch-fidelity, also as safetensors or npz),
or TensorFlow's own graph (classify_image_graph_def.pb).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vargen.evaluation import inception
from vargen.interop import files, shapes
from vargen.interop import mapping as m

WHAT = "Inception-v3 of FID"
# The bias is in the file, and in no measure: ADM's inception score leaves it out.
IGNORED = ("*.num_batches_tracked", "fc.bias")
FIRST = "Conv2d_1a_3x3.conv.weight"
GRAPH_FIRST = "conv/conv2d_params"


def read(path: files.Path) -> inception.Encoder:
    """The network with the weights of a file.

    Raises:
      UserError: no such file, a broken one, or arrays of another network; some are named.
    """
    arrays: Mapping[str, Any] = files.read(path).parameters()
    if GRAPH_FIRST in arrays:
        arrays = ported(arrays)
    return inception.Encoder(variables(arrays, os.fspath(path)))


def variables(arrays: Mapping[str, Any], what: str = WHAT) -> dict:
    """`params` and `batch_stats` of `inception.Inception` from the PyTorch port's arrays.

    Raises:
      UserError: arrays are missing, left over or of the wrong shape.
    """
    # Of arrays that are of another network altogether the table says which are missing.
    width = shapes.shape(arrays, FIRST)[0] if FIRST in arrays else inception.WIDTH
    like = expected(width)
    return m.read(table(like), arrays, like, ignore=IGNORED, what=f"{what}: {WHAT}")


def expected(width: int = inception.WIDTH) -> Any:
    """Shapes and dtypes of the variables."""
    images = jax.ShapeDtypeStruct((1, inception.SIDE, inception.SIDE, 3), np.uint8)
    return jax.eval_shape(inception.Inception(width).init, jax.random.key(0), images)


def table(like: Mapping[str, Any]) -> list[m.Entry]:
    """All entries, for variables of any width."""
    entries = m.array("params/fc/kernel", "fc.weight", m.DENSE)
    for name in scopes():
        ours = name.replace(".", "/")
        entries += m.conv(f"params/{ours}/conv", f"{name}.conv", bias=False)
        entries += m.norm(f"params/{ours}/bn", f"{name}.bn")
        for theirs, statistic in (("running_mean", "mean"), ("running_var", "var")):
            entries += m.array(f"batch_stats/{ours}/bn/{statistic}", f"{name}.bn.{theirs}")
    return entries


def ported(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The PyTorch port's arrays from the constants of TensorFlow's graph; a layer that lacks one is left out."""
    statistics = dict(weight="gamma", bias="beta", running_mean="moving_mean", running_var="moving_variance")
    found: dict[str, np.ndarray] = {}
    for name, scope in scopes().items():
        named = {f"{name}.bn.{theirs}": f"{scope}/batchnorm/{ours}" for theirs, ours in statistics.items()}
        found |= {theirs: arrays[ours] for theirs, ours in named.items() if ours in arrays}
        if (kernel := f"{scope}/conv2d_params") in arrays:
            found[f"{name}.conv.weight"] = m.CONV.write(arrays[kernel])
    if "softmax/weights" in arrays:
        found["fc.weight"] = m.DENSE.write(arrays["softmax/weights"])
    return found


def scopes() -> dict[str, str]:
    """Every layer's name in the port -> its scope in TensorFlow's graph, as in "mixed_9/tower/mixed/conv_1".

    The scope of a branch of one layer is the block's own; longer ones, and that of pooling, are its towers.
    """
    stem = [stage[0] for stage in inception.STEM if stage is not None]
    found = {conv.name: _numbered("conv", i) for i, conv in enumerate(stem)}
    for i, block in enumerate(inception.BLOCKS):
        outer, towers = _numbered("mixed", i), itertools.count()
        for branch in block.branches:
            scope = outer if len(branch) == 1 else f"{outer}/{_numbered('tower', next(towers))}"
            for j, step in enumerate(branch):
                named = (
                    {step: _numbered("conv", j)}
                    if isinstance(step, inception.Conv)
                    else {conv: f"mixed/{_numbered('conv', k)}" for k, conv in enumerate(step)}
                )
                found |= {f"{block.name}.{conv.name}": f"{scope}/{last}" for conv, last in named.items()}
        if block.pool_features:
            found[f"{block.name}.branch_pool"] = f"{outer}/{_numbered('tower', next(towers))}/conv"
    return found


def _numbered(name: str, i: int) -> str:
    return f"{name}_{i}" if i else name
