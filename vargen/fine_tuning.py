"""What changes when training starts with a trained model, one's own or an imported one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vargen import axes, limits, parts
from vargen.config import AXES

if TYPE_CHECKING:
    import jax
    from ml_collections import ConfigDict

    from vargen.generator import Generator

# A trained model forgets at the rates that a fresh one learns with.
TRAINING: dict[str, Any] = dict(
    learning_rate=1e-5,
    min_learning_rate=0.0,
    schedule="constant",
    warmup_steps=100,
    final_weight_decay=None,
    ema_decay=0.999,
    ema_warmup=True,
)


def begun(c: ConfigDict) -> ConfigDict:
    """A copy of a trained model's config as fine-tuning starts with it: `TRAINING`, and what its parts say of it.

    Raises:
      UserError: an unknown part.
    """
    c = c.copy_and_resolve_references()
    c.training.update(TRAINING)
    for axis in AXES:
        if part := c.get(axis):
            known = limits.fields(parts.find(axes.PARTS[axis], part.name, axis))
            with part.unlocked():
                part.update({k: f.fine_tuned.value for k, f in known.items() if f.fine_tuned})
    return c


def grown(generator: Generator, params: Any, key: jax.Array) -> Any:
    """Parameters with those of branches that they lack: each begins as the end of the first branch, and what of the
    feed is missing anew.

    Args:
      generator: what is to be trained.
      params: of one that may have fewer branches, a nested dict.
      key: PRNG key.
    """
    branches, found = generator.feed.branches, dict(params)
    if all(generator.name_of_head(number) in params for number in range(len(branches))):
        return params
    for number, branch in enumerate(branches[1:], 1):
        names = [[generator.stages[i].name for i in path] for path in (branches[0], branch)]
        pairs = [(a + end, b + end) for a, b in zip(*names, strict=True) for end in ("", "_norm", "_skips")]
        for theirs, ours in [*pairs, ("head", generator.name_of_head(number))]:
            if theirs in params and ours not in params:
                found[ours] = params[theirs]
    fresh = generator.init_feed(key)
    return found | {"feed": {name: params["feed"].get(name, fresh[name]) for name in fresh}}
