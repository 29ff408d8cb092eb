"""JPEG-LM: a Llama over the bytes of JPEG files. arXiv 2408.08459.

    vargen quickstart --config configs/jpeglm.py:digits --workdir runs/jpeglm
    vargen quickstart --config configs/jpeglm.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/jpeglm.py:7b --workdir runs/jpeglm_7b --config.data.path=~/pictures

Checked: bytes and pixels are libjpeg's. A picture is as many codes as its file has bytes, merged to 320 codes; the loss
counts these and the stop code behind them, and drawing ends with the last picture's. The headers and tables, which are
the same in every file, are left out. The tokenizer has nothing to train. Pictures that don't fit are not learnt, and
counted where codes are stored. `Model.continued` draws what follows a prefix of codes, of one length for all examples;
restart markers let one end with a row of blocks.

`vargen import jpeglm` reads a reimplementation that one of the authors published. Its codes are of whole files but for
the tables, by the tokenizer's options `header` and `pieces`.

Published, without classes: FID 34.21 of ImageNet's pictures completed from their first three quarters (5000 of them),
27.15 of FFHQ's from their first half. Not trained by us. Parameters of the generator: 7b 6479 M.

The generator's recipe is the paper's where it says anything: pictures of 256x256 pixels, quality 25, 4:2:0, batches of
some three million codes, two epochs of 23 M pictures, a rate of 3e-4; the restart marker after each MCU is that of the
public code (xhan77/jpeg-lm). The paper puts pictures one after another in rows of 12 K codes, here each has a row of
its own; batch, warm-up and decay aren't published.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(
        layers=4, width=128, heads=4, quality=10, length=47, slots=43, merges=3, batch=32, steps=10000
    ),
    pictures32=Size(
        layers=4, width=192, heads=6, quality=25, length=319, slots=287, merges=63, batch=32, steps=2000
    ),
    pictures64=Size(
        layers=4, width=192, heads=6, quality=25, length=1023, slots=895, merges=63, batch=8, steps=1200
    ),
    # The paper's.
    **{"7b": Size(layers=32, width=4096, heads=32, mlp_width=11008, length=16384, slots=12287, merges=63)},
)


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part("raster")
    c.feed = part("shift")
    c.mixer = part("attention", heads=s.heads, rope="sequence", out_bias=False)
    c.head = part("categorical", bias=False)
    c.model = dict(layers=s.layers, width=s.width, mlp="swiglu", norm="rms", eps=1e-5, bias=False)
    c.tokenizer = part("jpeg", restart=1, length=s.length, slots=s.slots, merges=s.merges)
    return small(c, size, s) if hasattr(s, "quality") else paper(c, s)


def small(c, size, s):
    c.name = "JPEG-LM"
    c.data = base.small_data(size)
    c.tokenizer.quality = s.quality
    c.model.update(dict(mlp_width=3 * s.width, dropout=0.1))
    c.mixer.dropout = c.feed.dropout = 0.1
    c.sampling.update(
        dict(guidance=2.0, top_k=40, top_p=0.9)
    )  # without the filters one file in three is whole
    base.small(c, tokenizer={}, generator=dict(steps=s.steps, batch_size=s.batch))
    return c


def paper(c, s):
    c.name = "JPEG-LM-7B"
    c.data = base.images("folder", 256, 3, 0)
    c.conditioning = part("label", dropout=1.0)
    c.model.update(dict(mlp_width=s.mlp_width, init_std=0.02, init="normal"))
    c.sampling.update(dict(top_k=50, top_p=0.9))
    c.presets.paper = base.preset(top_k=40, top_p=0.9)
    c.training.update(
        dict(
            steps=2 * 23_000_000 // 512,
            batch_size=512,
            learning_rate=3e-4,
            warmup_steps=1000,
            weight_decay=0.1,
            ema_decay=0.0,
            remat="blocks",
        )
    )
    return c
