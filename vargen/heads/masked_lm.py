"""The head of a masked language model, whose words' table is that of the rows that come in."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from vargen.heads.categorical import Codes
from vargen.layers import Dense, Norm, logical
from vargen.limits import EPS

CLASS_BIAS = (
    "head/class_bias"  # the parameter of a generator that has a number for each row of the table of classes
)


class MaskedLM(Codes):
    """Logits are products with the embeddings of the feed's codes, of the classes and of the mask, and a bias each
    (BERT, arXiv 1810.04805; MaskGIT, arXiv 2202.04200, official code).

    All V = K + classes + 1 words share the softmax of the loss; codes alone are drawn.

    Attributes:
      eps: of the norm.
    """

    eps: Annotated[float, EPS] = 1e-12

    called = "masked_lm"
    shares = ("feed/content/codes/table", "condition/classes/table", "feed/mask")

    @nn.compact
    def __call__(self, hidden):
        """Logits: [..., D] -> float32 [..., V]."""
        tables = [self.get_variable("shared", name) for name in self.shares]
        zeros = nn.initializers.zeros
        biases = [
            self.param(f"{name}_bias", logical(zeros, axis), (len(table),))
            for name, axis, table in zip(
                ("code", "class", "mask"), ("vocab", None, None), tables, strict=True
            )
        ]
        dense = Dense(
            hidden.shape[-1], ("embed", "mlp"), self.initial.kernel(), dtype=self.dtype, name="dense"
        )
        x = Norm(eps=self.eps, name="norm")(nn.gelu(dense(hidden), approximate=True))
        words = jnp.concatenate([table.astype(self.dtype) for table in tables])
        return (x @ words.T).astype(jnp.float32) + jnp.concatenate(biases)
