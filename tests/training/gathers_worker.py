"""Runs in a process of its own with eight devices: what a training step of the systems named sends at once, as JSON."""

import json
import math
import re
import sys

import jax
from systems import SYSTEMS

from benchmarks import compiled
from vargen import models

# Of floats: codes and places are small beside what is made of them.
COLLECTIVE = re.compile(
    r"= \(?((?:f32|bf16)\[([\d,]*)\]).*? (?:all-gather|all-to-all|all-reduce)(?:-start)?\(.*"
)


def main():
    out = {}
    for name in sys.argv[1:]:
        c = SYSTEMS[name]()
        tokenizer = models.build_tokenizer(c)
        generator = models.build_generator(c, tokenizer)
        text = compiled.trainer(c, tokenizer, generator, 64, jax.devices(), fsdp=4).compile().as_text()
        largest = max(x.size for x in jax.tree.leaves(jax.eval_shape(generator.init, jax.random.key(0))))
        sent = []
        for found in COLLECTIVE.finditer(text):
            alone = "replica_groups={{0},{1}" in found[0]  # along an axis of one device
            if not alone and math.prod(int(n) for n in found[2].split(",") if n) > largest:
                where = re.search(r'op_name="([^"]*)"', found[0])
                sent.append([found[1], where[1] if where else ""])
        out[name] = dict(largest=largest, sent=sent, collectives=len(COLLECTIVE.findall(text)))
    print(json.dumps(out))


if __name__ == "__main__":
    main()
