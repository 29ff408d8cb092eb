"""Steps of different sizes in one loop."""

import dataclasses
import pathlib
from types import SimpleNamespace

import jax
import pytest
from systems import make

from vargen import config, models
from vargen.samplers import Sampling
from vargen.samplers.policies import groups, joined

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def split(generator, sampling):
    """The groups of a sampling's steps, and what becomes of them."""
    ordering = sampling.ordering(generator.ordering)
    order = ordering.decoding(jax.random.key(0), 1, sampling.steps)
    call = SimpleNamespace(generator=generator, slots=order.slots, sampling=sampling, order=order)
    found = groups(order, generator.feed)
    return found, joined(call, found)


@pytest.mark.parametrize("name, programs", [("randar:l", 47), ("arpg:l", 48)])
def test_parallel_decoding_takes_few_programs(name, programs):
    """Of the paper's steps: each once, none beyond the slots or before the first, for at most a third more rows."""
    c = config.load(f"{CONFIGS / name.partition(':')[0]}.py:{name.partition(':')[2]}")
    generator = models.build_generator(c, models.build_tokenizer(c))
    sampling = Sampling.make(**c.sampling.to_dict() | c.presets.paper.sampling.to_dict())
    before, after = split(generator, sampling)
    assert len(before) == programs and len(after) == 5
    rows = []
    for kind in (before, after):
        steps = [s for group in kind for s in group]
        assert [s.index for s in steps] == list(range(len(steps)))
        assert sum(s.count for s in steps) == 256
        rows.append(sum(s.before + s.size for s in steps))
    assert rows[1] < 4 / 3 * rows[0]
    true = {s.index: s for group in before for s in group}
    for group in after:
        assert len({(s.before, s.size) for s in group}) == 1
        for s in group:
            assert s.start == true[s.index].start and s.count == true[s.index].size
            assert s.before >= true[s.index].before and s.before <= s.start and s.start + s.size <= 256


@pytest.mark.parametrize("name", ["randar", "arpg"])
def test_what_rows_depend_on_stays_apart(name):
    """Steps whose settings go by their size, and states that each row changes."""
    generator = make(name)[1]
    sizes = Sampling.make(steps=6)
    before, after = split(generator, sizes)
    assert len(after) < len(before)
    assert split(generator, dataclasses.replace(sizes, random_sides=(2,)))[1] == before
    mixer = SimpleNamespace(keeps_rows=False)
    states = dataclasses.replace(
        generator, stages=[SimpleNamespace(block=SimpleNamespace(mixer=mixer)), *generator.stages[1:]]
    )
    assert split(states, sizes)[1] == split(states, sizes)[0]
