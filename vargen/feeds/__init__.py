"""Feeds: how the known slots reach a prediction.

A feed is a Linen module. `inputs` makes the rows of a whole (training) pass; `begin`, `step_inputs` and
`absorb` make those of one decoding step; `outputs` says which of the blocks' results predict. Its `stacks`
name the stacks of blocks that it drives (with `between` where there are two), `cached` says whether known rows
can be remembered in a cache, `by_level` whether every step has arithmetic of its own, and `check` refuses an
order that it can't honour. `takes_rows` says whether it takes a condition of several rows, `step_condition` whether
every row brings a condition of its own. `lead` is how many rows come before those that predict. `visibility` says
whom its rows may see: "steps" (rows of their own step and earlier; rows come in generation sequence), "led" (the
same after `lead` rows of earlier steps), "all" (everyone; the whole grid after the condition's rows) or "some" (not
all rows that are there, and which differs per example).
"""

from vargen.feeds.mask import Mask
from vargen.feeds.refine import Refine
from vargen.feeds.rows import Rows, Step
from vargen.feeds.shift import Shift

FEEDS = {"mask": Mask, "refine": Refine, "shift": Shift}

__all__ = ["FEEDS", "Mask", "Refine", "Rows", "Shift", "Step"]
