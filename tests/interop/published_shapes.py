"""Names and shapes of published files of which no golden can be, written down from what is known of the files."""


class Shapes(dict):
    """By name; the methods add those of layers."""

    def linear(self, name, outputs, inputs, bias=True):
        self[f"{name}.weight"] = (outputs, inputs)
        if bias:
            self[f"{name}.bias"] = (outputs,)

    def conv(self, name, outputs, inputs, size=3):
        self[f"{name}.weight"] = (outputs, inputs, size, size)
        self[f"{name}.bias"] = (outputs,)

    def norm(self, name, width, bias=False):
        self[f"{name}.weight"] = (width,)
        if bias:
            self[f"{name}.bias"] = (width,)

    def attention(self, name, width, bias=True):
        self.linear(f"{name}.qkv", 3 * width, width, bias)
        self.linear(f"{name}.proj", width, width)

    def gated(self, name, width, hidden):
        self.linear(f"{name}.fc1_g", hidden, width)
        self.linear(f"{name}.fc1_x", hidden, width)
        self.linear(f"{name}.fc2", width, hidden)

    def stacks(self, width, hidden, layers):
        """xAR's and FlowAR's encoder and decoder, of so many layers each."""
        for stage in ("encoder", "decoder"):
            self.norm(f"{stage}_norm", width)
            for i in range(layers):
                b = f"{stage}_blocks.{i}"
                self.attention(f"{b}.attn", width)
                self.gated(f"{b}.mlp", width, hidden)
                self.linear(f"{b}.ada_lin.1", 6 * width, width)
        self.linear("decoder_embed", width, width)


def xar(width=768, layers=8, hidden=2048, slots=256, channels=16, classes=1000):
    """OliverRen/xAR's files, without the buffers: xAR-B unless told."""
    found = Shapes({"class_emb.weight": (classes + 1, width)})
    found.linear("time_embed.mlp.0", width, 256)
    found.linear("time_embed.mlp.2", width, width)
    found.linear("z_proj", width, channels)
    found.norm("z_proj_ln", width)
    for stage in ("encoder", "decoder"):
        found[f"{stage}_pos_embed_learned"] = (1, slots, width)
    found.stacks(width, hidden, layers)
    found.linear("pred", channels, width)
    return found


def flowar(
    width=768, layers=6, hidden=2048, flow=1024, depth=2, cross=False, slots=341, channels=16, classes=1000
):
    """OliverRen/FlowAR's files with the mask: FlowAR-S unless told; `cross`: the blocks of L and H."""
    found = Shapes({"class_emb.weight": (classes + 1, width), "mask": (1, 1, slots, slots)})
    found.linear("z_proj", width, channels)
    found.norm("z_proj_ln", width)
    for part in ("encoder", "decoder", "diffusion"):
        found[f"{part}_pos_embed_learned"] = (1, slots, width)
    found.stacks(width, hidden, layers)
    found.linear("flownet.time_embed.mlp.0", flow, 256)
    found.linear("flownet.time_embed.mlp.2", flow, flow)
    found.linear("flownet.cond_embed", flow, width)
    found.linear("flownet.input_proj", flow, channels)
    for i in range(depth):
        b = f"flownet.res_blocks.{i}"
        found.attention(f"{b}.attn", flow, bias=False)
        found.gated(f"{b}.mlp", flow, 8 * flow // 3)
        if cross:
            found.linear(f"{b}.crossattn.q", flow, flow, False)
            found.linear(f"{b}.crossattn.kv", 2 * flow, width, False)
            found.linear(f"{b}.crossattn.proj", flow, flow)
            found.norm(f"{b}.norm2_1", flow)
            found.norm(f"{b}.norm2_2", width)
            found.linear(f"{b}.ada_lin_attn", 3 * flow, flow)
            found.linear(f"{b}.ada_lin_mlp", 3 * flow, flow)
        else:
            found.linear(f"{b}.ada_lin", 6 * flow, flow)
    found.linear("flownet.final_layer.linear", channels, flow)
    found.linear("flownet.final_layer.adaLN_modulation.1", 2 * flow, flow)
    return found


def dnd(width=1536, layers=48, hidden=4096, codes=2, vocab=16384, rows=1001):
    """leonardPKU/DnD-Transformer's xxl_model.pt unless told; `rows`: classes and none, or the one there is."""
    found = Shapes(
        {"cls_embedding.embedding_table.weight": (rows, width), "tok_embeddings.weight": (vocab, width)}
    )
    for i in range(layers):
        b = f"layers.{i}"
        found.linear(f"{b}.attention.wqkv", 3 * width, width, False)
        found.linear(f"{b}.attention.wo", width, width, False)
        found.linear(f"{b}.feed_forward.w1", hidden, width, False)
        found.linear(f"{b}.feed_forward.w3", hidden, width, False)
        found.linear(f"{b}.feed_forward.w2", width, hidden, False)
        found.norm(f"{b}.attention_norm", width)
        found.norm(f"{b}.ffn_norm", width)
    for j in range(codes):
        found.norm(f"norm.{j}", width)
        found.linear(f"output.{j}", vocab, width, False)
    return found


def sd_kl(widths=(128, 256, 512, 512), latents=4):
    """stabilityai/sd-vae-ft-ema's diffusion_pytorch_model.safetensors unless told."""
    found = Shapes()

    def block(name, inputs, outputs):
        found.norm(f"{name}.norm1", inputs, bias=True)
        found.conv(f"{name}.conv1", outputs, inputs)
        found.norm(f"{name}.norm2", outputs, bias=True)
        found.conv(f"{name}.conv2", outputs, outputs)
        if inputs != outputs:
            found.conv(f"{name}.conv_shortcut", outputs, inputs, 1)

    def middle(end, width):
        block(f"{end}.mid_block.resnets.0", width, width)
        found.norm(f"{end}.mid_block.attentions.0.group_norm", width, bias=True)
        for name in ("query", "key", "value", "proj_attn"):
            found.linear(f"{end}.mid_block.attentions.0.{name}", width, width)
        block(f"{end}.mid_block.resnets.1", width, width)

    first, last, levels = widths[0], widths[-1], len(widths)
    found.conv("encoder.conv_in", first, 3)
    before = first
    for i, width in enumerate(widths):
        for j in range(2):
            block(f"encoder.down_blocks.{i}.resnets.{j}", before, width)
            before = width
        if i < levels - 1:
            found.conv(f"encoder.down_blocks.{i}.downsamplers.0.conv", width, width)
    middle("encoder", last)
    found.norm("encoder.conv_norm_out", last, bias=True)
    found.conv("encoder.conv_out", 2 * latents, last)
    found.conv("quant_conv", 2 * latents, 2 * latents, 1)
    found.conv("post_quant_conv", latents, latents, 1)
    found.conv("decoder.conv_in", last, latents)
    middle("decoder", last)
    for i, width in enumerate(reversed(widths)):
        for j in range(3):
            block(f"decoder.up_blocks.{i}.resnets.{j}", before, width)
            before = width
        if i < levels - 1:
            found.conv(f"decoder.up_blocks.{i}.upsamplers.0.conv", width, width)
    found.norm("decoder.conv_norm_out", first, bias=True)
    found.conv("decoder.conv_out", 3, first)
    return found
