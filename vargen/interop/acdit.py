"""ACDiT's transformer (thunlp/ACDiT, ACDiT-XL-img.pt ...): the authors' parameter names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.interop import mapping as m
from vargen.interop import shapes

WHAT = "ACDiT"
IGNORED = ()
WRAPPED = ("model",)
NAMES = {768: "B", 1024: "L", 1152: "XL", 1280: "H"}  # by width; heads are 64 wide


def levels(arrays: Mapping[str, Any]) -> None:
    """The arrays don't tell how many slots there are: positions are rotary."""


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` where the authors' rule isn't followed.

    Raises:
      UserError: slots of several latents, as the models of videos have.
    """
    width = shapes.from_latents(arrays, "x_embedder.weight", c.tokenizer.channels, WHAT)
    c.name = f"ACDiT-{NAMES.get(width, width)}"
    c.data.num_classes = shapes.shape(arrays, "y_embedder.embedding_table.weight", WHAT)[0] - 1
    c.order = part("cells", count=(2, 2))
    c.feed = part("noisy", bias=False)
    heads = shapes.heads(width, heads, width // 64, WHAT)
    c.mixer = part("attention", heads=heads, qk_norm="rms", bias="qkv", rope="halves")
    c.head = part("epsilon", sample_steps=25)
    c.model = dict(
        layers=shapes.count(arrays, "blocks.{}.attn.proj.weight", WHAT),
        width=width,
        norm="rms",
        adaptive="adaln",
        adaln_zero=True,
        final_norm="both",
        init_std=0.0,
        init="normal",
    )
    hidden = shapes.shape(arrays, "blocks.0.mlp.fc1.weight", WHAT)[0]
    if hidden != 4 * width:
        c.model.mlp_width = hidden
    c.sampling.guidance = 1.5
    c.presets.paper = preset(count=50, guidance=1.5)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    width, (stage,) = generator.width, generator.stages

    def layer(i: int) -> list[m.Entry]:
        b = f"blocks.{i}"
        ours = [f"blocks/mixer/{name}" for name in ("query", "key", "value")]
        entries = m.split_dense(ours, f"{b}.attn.qkv", [width] * 3)
        for name in ("q", "k"):
            ours_norm = f"blocks/mixer/{'query' if name == 'q' else 'key'}_norm"
            entries += m.norm(ours_norm, f"{b}.attn.{name}_norm", bias=False)
        entries += m.dense("blocks/mixer/out", f"{b}.attn.proj")
        entries += m.dense("blocks/feed_forward/up", f"{b}.mlp.fc1")
        entries += m.dense("blocks/feed_forward/down", f"{b}.mlp.fc2")
        entries += m.norm("blocks/norm_1", f"{b}.norm1", bias=False)
        entries += m.norm("blocks/norm_2", f"{b}.norm2", bias=False)
        # Theirs: shift, scale, gate of the mixer, then of the MLP.
        return entries + modulation("blocks/modulation", f"{b}.adaLN_modulation.1", (2, 5, 1, 4, 0, 3))

    entries = m.array("condition/classes/table", "y_embedder.embedding_table.weight")
    entries += m.dense("feed/content/latents", "x_embedder", bias=False)
    entries += m.dense("feed/time_1", "t_embedder.mlp.0") + m.dense("feed/time_2", "t_embedder.mlp.2")
    entries += m.stacked(stage.layers, layer)
    entries += m.norm("blocks_norm/norm", "final_layer.norm_final", bias=False)
    entries += modulation("blocks_norm/modulation", "final_layer.adaLN_modulation.1", (1, 0))
    return entries + m.dense("head/out", "final_layer.linear")


def modulation(target: str, source: str, order: tuple[int, ...]) -> list[m.Entry]:
    """A linear layer whose results are theirs in another `order`."""
    kernel = m.permuted(f"{target}/kernel", f"{source}.weight", order, m.DENSE)
    return kernel + m.permuted(f"{target}/bias", f"{source}.bias", order)
