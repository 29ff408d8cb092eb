"""The authors' own modules with random weights, from a checkout of theirs: for timing beside ours.

On CUDA at their best settings: products in TF32 or bfloat16, cuDNN's search, and `torch.compile` where their sampling
script offers it (LlamaGen). Where their code runs under autocast, linear and convolution weights are cast once, before
it, which saves the cast at every call.
"""

from __future__ import annotations

import contextlib
import importlib.util
import pathlib
import sys
import time
import types
from collections.abc import Callable, Mapping
from typing import Any


class Reference:
    """A sampler and a decoder, as one function without arguments.

    `sample()` generates a batch and its images and returns when they are there; `split` holds the seconds that the
    decoder took the last time; `parameter_bytes` is the size of all parameters.
    """

    def __init__(self, sample: Callable[[], None], split: dict[str, float], parameter_bytes: int):
        self.sample, self.split, self.parameter_bytes = sample, split, parameter_bytes


def var(checkout: str, batch: int, sampling: Mapping[str, Any], device: str, dtype: str) -> Reference:
    """VAR-d16 at 256x256 (FoundationVision/VAR); autocast, as in the authors' notebook."""
    import torch
    from torch import nn

    layers = [
        getattr(nn, kind)
        for kind in "Linear LayerNorm BatchNorm2d SyncBatchNorm Conv1d Conv2d ConvTranspose1d "
        "ConvTranspose2d".split()
    ]
    saved = [layer.reset_parameters for layer in layers]
    with _checkout(checkout):
        if _absent("huggingface_hub"):
            _module("huggingface_hub", PyTorchModelHubMixin=object)
        from models import build_vae_var
    torch.manual_seed(0)
    levels = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    tokenizer, model = build_vae_var(device=device, patch_nums=levels, depth=16, shared_aln=False)
    # Their build takes initialisation away from every layer made in this process from then on, and leaves
    # convolutions uninitialised.
    for layer, reset in zip(layers, saved):
        layer.reset_parameters = reset
    for parameter in [*tokenizer.parameters(), *model.parameters()]:
        torch.nn.init.normal_(parameter, std=0.02)
    _prepare(device, dtype, model, tokenizer)
    options = dict(cfg=sampling["guidance"], top_k=sampling["top_k"], top_p=sampling["top_p"], g_seed=0)
    labels, split = torch.arange(batch, device=device), {}
    tokenizer.fhat_to_img = _timed(tokenizer.fhat_to_img, split, device)

    def sample():
        with torch.inference_mode(), _autocast(device, dtype):
            model.autoregressive_infer_cfg(batch, labels, **options)
        _wait(device)

    return Reference(sample, split, _size(model, tokenizer))


def llamagen(checkout: str, batch: int, sampling: Mapping[str, Any], device: str, dtype: str) -> Reference:
    """LlamaGen-B at 256x256 with VQ-16 (FoundationVision/LlamaGen); the whole model in `dtype`."""
    import torch

    with _checkout(checkout):
        from autoregressive.models.generate import generate
        from autoregressive.models.gpt import GPT_models
        from tokenizer.tokenizer_image.vq_model import VQ_models
    torch.manual_seed(0)
    model = GPT_models["GPT-B"](vocab_size=16384, block_size=256, num_classes=1000)
    tokenizer = VQ_models["VQ-16"](codebook_size=16384, codebook_embed_dim=8)
    for module in (model, tokenizer):
        module.to(device, getattr(torch, dtype)).eval()
    size = _size(model, tokenizer)
    if device == "cuda":
        _fast(torch)
        build = model.setup_caches

        # New caches at every call would have their compiled graphs recorded again; old rows are never looked at.
        def keep(**sizes):
            if model.layers[0].attention.kv_cache is None:
                build(**sizes)

        model.setup_caches = keep
        torch._dynamo.reset()
        model = torch.compile(model, mode="reduce-overhead", fullgraph=True)
    options = dict(
        cfg_scale=sampling["guidance"],
        temperature=sampling["temperature"],
        top_k=sampling["top_k"],
        top_p=sampling["top_p"],
    )
    labels, split = torch.arange(batch, device=device), {}
    decode = _timed(tokenizer.decode_code, split, device)

    def sample():
        with torch.no_grad():
            codes = generate(model, labels, 256, **options)
            decode(codes, (batch, 8, 16, 16))
        _wait(device)

    return Reference(sample, split, size)


def mar(checkout: str, batch: int, sampling: Mapping[str, Any], device: str, dtype: str) -> Reference:
    """MAR-B at 256x256 with KL-16 (LTH14/mar), `sampling["steps"]` steps of 100 denoisings; autocast, as theirs."""
    import torch

    _timm()
    with _checkout(checkout):
        from models.mar import mar_base
        from models.vae import AutoencoderKL
    if device == "cpu":
        # Their code moves every new tensor to a GPU.
        torch.Tensor.cuda = lambda self, *args, **kwargs: self
    torch.manual_seed(0)
    model = mar_base(diffloss_d=6, diffloss_w=1024, num_sampling_steps="100").to(device)
    tokenizer = AutoencoderKL(embed_dim=16, ch_mult=(1, 1, 2, 2, 4)).to(device)
    _prepare(device, dtype, model, tokenizer)
    options = dict(
        num_iter=sampling["steps"],
        cfg=sampling["guidance"],
        cfg_schedule=sampling["guidance_schedule"],
        temperature=sampling["temperature"],
    )
    labels, split = torch.arange(batch, device=device), {}
    decode = _timed(tokenizer.decode, split, device)

    def sample():
        with torch.inference_mode(), _autocast(device, dtype):
            decode(model.sample_tokens(batch, labels=labels, **options) / 0.2325)
        _wait(device)

    return Reference(sample, split, _size(model, tokenizer))


def rar(checkout: str, batch: int, sampling: Mapping[str, Any], device: str, dtype: str) -> Reference:
    """RAR-B at 256x256 with MaskGIT's VQGAN (bytedance/1d-tokenizer), cached; the whole model in `dtype`."""
    import torch

    _timm()
    with _checkout(checkout):
        # The package's own __init__ imports losses and much else that sampling doesn't need.
        package = types.ModuleType("modeling.modules")
        package.__path__ = [str(pathlib.Path(checkout) / "modeling" / "modules")]
        sys.modules["modeling.modules"] = package
        from modeling.modules.base_model import BaseModel

        package.BaseModel = BaseModel
        from modeling.modules.maskgit_vqgan import Decoder, Encoder, VectorQuantizer
        from modeling.rar import RAR
    torch.manual_seed(0)
    generator = _Config(
        hidden_size=768,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=3072,
        image_seq_len=256,
        condition_num_classes=1000,
        dropout=0.1,
        attn_drop=0.1,
    )
    vq_model = _Config(codebook_size=1024)
    model = RAR(_Config(model=_Config(generator=generator, vq_model=vq_model)))
    ends = _Config(
        channel_mult=[1, 1, 2, 2, 4],
        num_resolutions=5,
        dropout=0.0,
        hidden_channels=128,
        num_channels=3,
        num_res_blocks=2,
        resolution=256,
        z_channels=256,
    )
    decoder, quantizer = Decoder(ends), VectorQuantizer(1024, 256, 0.25)
    # The encoder isn't used: their tokenizer holds it, as ours does.
    modules = (model, decoder, quantizer, Encoder(ends))
    for module in modules:
        module.to(device, getattr(torch, dtype)).eval()
    if device == "cuda":
        _fast(torch)
    options = dict(
        guidance_scale=sampling["guidance"],
        guidance_scale_pow=sampling["guidance_power"],
        randomize_temperature=sampling["temperature"],
    )
    labels, split = torch.arange(batch, device=device), {}
    decode = _timed(lambda codes: decoder(quantizer.get_codebook_entry(codes)).clamp(0, 1), split, device)

    def sample(_held=modules):
        with torch.inference_mode():
            decode(model.generate(labels, **options))
        _wait(device)

    return Reference(sample, split, _size(*modules))


class _Config(dict):
    """A dict whose keys are attributes too, as omegaconf's."""

    __getattr__ = dict.__getitem__


@contextlib.contextmanager
def _checkout(path: str):
    """Inside, imports find the checkout's modules: not those of another checkout that have the same name."""
    names = {entry.stem for entry in pathlib.Path(path).iterdir()}
    for name in [n for n in sys.modules if n.split(".")[0] in names]:
        del sys.modules[name]
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)


def _absent(name: str) -> bool:
    return name not in sys.modules and importlib.util.find_spec(name) is None


def _module(name: str, **contents) -> None:
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)


def _timm() -> None:
    """The two classes of timm that the authors use, where it is not installed."""
    if not _absent("timm"):
        return
    from torch import nn
    from torch.nn.functional import scaled_dot_product_attention

    class Mlp(nn.Module):
        def __init__(self, in_features, hidden_features, act_layer=nn.GELU, drop=0.0):
            super().__init__()
            self.fc1, self.fc2 = (
                nn.Linear(in_features, hidden_features),
                nn.Linear(hidden_features, in_features),
            )
            self.act, self.drop = act_layer(), nn.Dropout(drop)

        def forward(self, x):
            return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))

    class Attention(nn.Module):
        def __init__(self, width, heads, bias):
            super().__init__()
            self.heads, self.qkv, self.proj = (
                heads,
                nn.Linear(width, 3 * width, bias),
                nn.Linear(width, width),
            )

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    class Block(nn.Module):
        def __init__(self, dim, num_heads, mlp_ratio, qkv_bias, norm_layer, proj_drop, attn_drop):
            super().__init__()
            self.norm1, self.norm2 = norm_layer(dim), norm_layer(dim)
            self.attn = Attention(dim, num_heads, qkv_bias)
            self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)

        def forward(self, x):
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    _module("timm")
    _module("timm.layers", Mlp=Mlp)
    _module("timm.models")
    _module("timm.models.vision_transformer", Block=Block)


def _prepare(device: str, dtype: str, *modules) -> None:
    """Ready for sampling; under autocast the weights of linear layers and convolutions are cast once."""
    import torch

    for module in modules:
        module.eval().requires_grad_(False)
        for layer in module.modules():
            if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
                layer.to(getattr(torch, dtype))
    if device == "cuda":
        _fast(torch)


def _fast(torch) -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def _autocast(device: str, dtype: str):
    import torch

    return torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _size(*modules) -> int:
    return sum(p.numel() * p.element_size() for m in modules for p in m.parameters())


def _timed(function: Callable, split: dict[str, float], device: str) -> Callable:
    def run(*args, **kwargs):
        _wait(device)
        start = time.perf_counter()
        out = function(*args, **kwargs)
        _wait(device)
        split["decoder"] = time.perf_counter() - start
        return out

    return run
