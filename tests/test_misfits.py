"""Parts that don't fit each other are refused when the config is built, in one line."""

import pytest
from systems import (
    acdit,
    arpg,
    flexvar,
    flowar,
    himar,
    hmar,
    hmar_masked,
    jpeglm,
    llamagen,
    llamagen_text,
    mar,
    mar_dit,
    maskgit,
    randar,
    rar,
    rqtransformer,
    var,
    xar,
)

from vargen import models
from vargen.config import part
from vargen.errors import UserError


@pytest.mark.parametrize(
    "base, change, message",
    [
        (llamagen, dict(feed=part("refine")), "refine: needs a tokenizer with levels"),
        (var, dict(order=part("raster")), "refine: needs the order levels"),
        (
            llamagen,
            dict(order=part("random_sets", steps=4)),
            "shift: needs an order whose steps are the same for all",
        ),
        (
            llamagen,
            dict(order=part("random_to_raster", start=0.0, end=1.0)),
            "random order needs target_positions",
        ),
        (mar, dict(order=part("raster")), "mask: needs an order of random sets"),
        (
            mar,
            dict(order=part("random_to_raster", start=0.0, end=1.0)),
            "mask: needs an order of random sets",
        ),
        (
            mar,
            dict(head=part("categorical")),
            "head categorical: expected a tokenizer of one code a slot, found slots of 4 numbers",
        ),
        (llamagen, dict(head=part("diffusion")), "head diffusion: expected a tokenizer of latents"),
        (
            arpg,
            dict(order=part("confidence", steps=4)),
            "feed query: needs an order whose steps in training are the same .* random; found the order confidence",
        ),
        (
            var,
            dict(order=part("masked_levels"), feed=part("mask", encoder_decoder=False)),
            r"order masked_levels: needs the feed branched (masked=True\) and a head of codes, .* found mask, categ",
        ),
        (var, dict(order=part("masked_levels")), "feed refine: needs the order levels"),
        (hmar, dict(order=part("masked_levels")), "feed branched: needs the order levels"),
        (hmar_masked, dict(order=part("levels")), "branched: with masked=True needs the order masked_levels"),
        (hmar_masked, dict(feed=part("branched", masked=True, past=True)), "expected past=False, found True"),
        (
            hmar,
            dict(feed=part("branched", encoder_decoder=True)),
            "expected encoder_decoder=False, found True",
        ),
        (hmar, dict(mixer=part("mamba", state=2)), "mixer mamba: expected rows all of which stay visible"),
        (
            hmar,
            dict(model=dict(layers=3, width=16, adaptive="adaln")),
            "layers: expected a number that 2 stages",
        ),
        (
            flexvar,
            dict(feed=part("shift", target_positions=True)),
            "order some_levels: trains on some of the slots alone, which needs the feed refine, found shift",
        ),
        (flexvar, dict(feed=part("instruct")), "order some_levels: .* needs the feed refine, found instruct"),
        (
            mar,
            dict(head=part("masked_lm")),
            "head masked_lm: expected a tokenizer of one code a slot, found slots of 4",
        ),
        (mar, dict(order=part("confidence", steps=4)), "order confidence: .* found mask, diffusion"),
        (maskgit, dict(order=part("confidence", steps=17)), "order.steps: expected 1 to 16 .* found 17"),
        (
            maskgit,
            dict(order=part("confidence", steps=4, skipped=4)),
            "skipped: expected fewer than steps, 4",
        ),
        (
            llamagen,
            dict(head=part("masked_lm")),
            "head masked_lm: shares feed/mask, which a feed must have, .*; found the feed shift",
        ),
        (
            rar,
            dict(model=dict(layers=2, width=16, adaptive="adaln", norm_position="post")),
            "model.norm_position: expected pre where blocks are modulated, found post",
        ),
        (
            mar,
            dict(model=dict(layers=4, width=16, skips=True)),
            "model.skips: needs three layers in each stage, found 2, 2",
        ),
        (
            llamagen,
            dict(order=part("spiral")),
            "order.name: expected one of cells, chunks, .*, some_levels, thinned_levels, found 'spiral'",
        ),
        (
            llamagen,
            dict(mixer=part("attention", heads=2, ropes=True)),
            "mixer.ropes: unknown; did you mean rope",
        ),
        (
            llamagen,
            dict(mixer=part("mamba", paths=["forward", "reverse"])),
            "mixer mamba: path reverse needs steps of several slots",
        ),
        (
            llamagen,
            dict(mixer=part("manhattan", heads=2)),
            "mixer manhattan: expected a feed whose rows all see",
        ),
        (
            mar,
            dict(mixer=part("linear", heads=2)),
            "mixer linear: expected a feed whose rows see whole steps",
        ),
        (
            llamagen,
            dict(mixer=part("chain", mixers=[part("ssm_2d"), part("atention")])),
            "mixer.mixers.name: expected one of attention, axial, .* found 'atention'; did you mean attention",
        ),
        (llamagen, dict(model=dict(layers=2, width=16, deep=3)), "model.deep: unknown"),
        (
            llamagen_text,
            dict(mixer=part("gla", heads=2)),
            "mixer gla: expected rows all of which stay visible",
        ),
        (
            var,
            dict(conditioning=part("caption", tokens=3)),
            "caption: makes 3 rows, which needs the feed shift",
        ),
        (
            llamagen_text,
            dict(model=dict(layers=2, width=16, adaptive="adaln")),
            "conditioning caption: has no vector, expected model.adaptive none",
        ),
        (
            rar,
            dict(model=dict(layers=2, width=16)),
            "step_condition modulates blocks, expected model.adaptive adaln",
        ),
        (rar, dict(mixer=part("axial", heads=2)), "mixer axial: needs"),
        (randar, dict(mixer=part("gla", heads=2)), "mixer gla: expected rows all of which stay visible"),
        (
            jpeglm,
            dict(order=part("frames")),
            "field order: expected raster, as the slots of the tokenizer jpeg end with a stop code, found frames",
        ),
        (arpg, dict(mixer=part("gla", heads=2)), "mixer gla: expected rows all of which stay visible"),
        (
            randar,
            dict(mixer=part("attention", heads=8)),
            "mixer.heads: expected heads of a multiple of 4 channels",
        ),
        (
            acdit,
            dict(order=part("random")),
            "noisy: needs an order that is the same for all examples, such as cells",
        ),
        (
            acdit,
            dict(order=part("cells", count=(3, 2))),
            "order.count: expected divisors of the sides 4x4, found 3x2; for instance 1, 2 or 4",
        ),
        (
            acdit,
            dict(order=part("cells", count=(2,))),
            "order.count: expected divisors of the sides 4x4, found 2; for instance (4, 4",
        ),
        (
            acdit,
            dict(order=part("chunks", size=3)),
            "order.size: expected a divisor of the 16 slots, found 3; for instance 1, 2 or 4",
        ),
        (
            acdit,
            dict(head=part("diffusion")),
            "noisy: shows what a head drafts over several passes, expected the head",
        ),
        (
            mar,
            dict(head=part("epsilon")),
            "epsilon: drafts over several passes, expected the feed noisy, found mask",
        ),
        (
            llamagen,
            dict(head=part("velocity")),
            "head velocity: drafts .* expected the feed noisy, found shift",
        ),
        (acdit, dict(mixer=part("gla", heads=2)), "mixer gla: expected rows in the sequence of their times"),
        (xar, dict(mixer=part("gla", heads=2)), "mixer gla: expected rows all of which stay visible"),
        (
            acdit,
            dict(mixer=part("attention", heads=8, rope="halves")),
            "heads of a multiple of 4 channels for rope",
        ),
        (
            acdit,
            dict(model=dict(layers=2, width=16)),
            "feed noisy modulates blocks, expected model.adaptive adaln",
        ),
        (mar, dict(feed=part("pivots")), "feed pivots: needs an order of random sets level by level"),
        (
            himar,
            dict(feed=part("mask")),
            "order level_sets: goes level by level, expected the feed pivots, found mask",
        ),
        (
            himar,
            dict(order=part("level_sets", steps=(3,))),
            "order.steps: expected one for each of 2 levels, found 1",
        ),
        (
            himar,
            dict(head=part("rounds", heads=dict(pivots=part("diffusion")))),
            "head.heads: expected one for each of pivots, picture, found 1",
        ),
        (
            mar,
            dict(head=himar().head),
            "head rounds: has parts for 2 rounds, expected a feed of as many, such as pivots, found mask",
        ),
        (
            flowar,
            dict(head=part("dit")),
            "head dit: looks at all that is known, expected a feed without a cache",
        ),
        (
            himar,
            dict(head=part("dit", depth=1, width=8, heads=2)),
            "head dit: draws slots of one level, .* or the head rounds, found 2 levels in the feed pivots",
        ),
        (
            randar,
            dict(order=part("cells", count=(2, 2))),
            "feed instruct: needs an order of one slot a step in training, such as random; found the order cells",
        ),
        (
            rar,
            dict(mixer=part("mamba_2d"), conditioning=part("label")),
            "mixer mamba_2d: needs the order raster .* found another order (feed shift, order random_to_raster",
        ),
        (mar_dit, dict(head=part("dit", width=8, heads=3)), "head.heads: expected a divisor of the width 8"),
        (
            mar,
            dict(model=dict(layers=2, width=16, adaptive="rounds")),
            "model.adaptive: rounds needs a feed of several, such as pivots, found mask",
        ),
        *(
            (rqtransformer, dict(head=part("depth", layers=1, mixer=mixer)), message)
            for mixer, message in (
                (
                    part("mamba_2d"),
                    "config field head.mixer mamba_2d: .* (in the head depth, of the 2 codes of a slot",
                ),
                (part("axial", heads=2), "config field head.mixer axial: needs the order raster"),
                (
                    part("attention", heads=3),
                    "config field head.mixer.heads: expected a divisor of the width 16",
                ),
                ("gla", "config field head.mixer: expected a part, such as name=attention, found 'gla'"),
            )
        ),
        (
            llamagen,
            dict(order=part("cells", count=(2, 2))),
            "feed.target_positions: expected True, as slots of one",
        ),
        (
            llamagen,
            dict(mixer=part("axial", heads=3)),
            "config field mixer.heads: expected a divisor of the width 16",
        ),
        (mar, dict(conditioning=part("label", lead=1)), "label: makes 2 rows, which needs the feed shift"),
        (
            mar,
            dict(model=dict(layers=3, width=16)),
            "model.layers: expected a number that 2 stages share evenly, .* found 3",
        ),
    ],
)
def test_misfits(base, change, message):
    c = base()
    for axis, value in change.items():
        c[axis] = value
    with pytest.raises(UserError, match=message.replace("(", r"\(")) as error:
        models.build_generator(c, models.build_tokenizer(c))
    assert "\n" not in str(error.value)
